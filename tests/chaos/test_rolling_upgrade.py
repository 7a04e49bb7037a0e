"""0.1.0 is upgraded to today under load: tables first, then workers and relay beside the old ones, which are then killed.

The promise (CHANGELOG, docs/running.md): messages and effects of the version before are understood; a create that one
version sent and the other repeats differs in its bytes, so Stripe refuses it and the effect is parked for a person
(`idempotency_error`). Whatever else was asked for is settled, and money never moves twice. The same backwards: a canary
that is taken away again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import conftest as house
from tests.chaos import book
from tests.chaos.old_code import HEAD_OF_0_1_0, Old, old_tree
from tests.contract.fake_servers import FakeServer
from tests.flow.nursery import Nursery
from tests.flow.oracle import Books
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.test_negative_controls import without
from tests.flow.test_pools import on_both_brokers
from tests.flow.wires import Wire, body, task
from tests.server import Server

__all__ = ["old_tree"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CALM_SECONDS = 90.0
UPGRADES_MAX = 10  # one that cannot get its lock within three seconds changes nothing and is run again
EACH_PHASE = 25  # effects that must be settled before the next thing is done to the system
PARKED = "idempotency_error"


@pytest.fixture
def system(
    postgres: Server, wire: Wire, stripe_fake: FakeServer, mail_fake: FakeServer, nursery: Nursery, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[System]:  # fmt: skip
    """On a database that is still at 0.1.0."""
    with postgres.database() as name:
        postgres.migrate(name, revision=HEAD_OF_0_1_0)
        monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", postgres.url_of(name))
        house.forget_process_state()
        made = System(postgres.url_of(name), wire, stripe_fake, mail_fake, nursery, tmp_path)
        try:
            yield made
        finally:
            made.close()
            house.forget_process_state()


def _head(system: System) -> str:
    return str(system.sql("select version_num from alembic_version")[0]["version_num"])


def _upgrade(system: System) -> int:
    """`counterfoil db upgrade`, as often as it asks for; how often it was run."""
    for turn in range(1, UPGRADES_MAX + 1):
        upgrade = system.start("upgrade", ["service", "db", "upgrade"])
        upgrade.expected_to_run = False
        if upgrade.wait(60) == 0:
            return turn
    raise AssertionError("the upgrade found no moment between the writers")


def _settled(system: System) -> int:
    return int(system.sql("select count(*) as n from effects where settled_at is not null")[0]["n"])


def _goes_on(system: System, number: int = EACH_PHASE) -> None:
    """The house as it is now settles so many more."""
    before = _settled(system)
    system.until(lambda: _settled(system) >= before + number, f"{number} more effects are settled", CALM_SECONDS)


def _calm(system: System) -> Books:
    """All is settled but what the changelog says is parked; both books agree."""
    open_ones = "select id, state from effects where state not in ('succeeded', 'failed', 'parked')"
    system.until(lambda: not system.sql(open_ones), "all is settled or waits for a person", CALM_SECONDS)
    books = system.oracle.check()
    reasons = [row["parked_reason"] for row in books.outbox.values()]
    assert set(reasons) <= {PARKED}, reasons
    for effect_id in books.outbox:
        effect = books.effects[effect_id]
        assert (effect["kind"], effect["progress"]) == ("charge", {}), "parked in its first step: no money has moved"
        assert effect["attempt"] > 1
        assert not books.money_of.get(effect_id)
    return books


def _accepted(*callers: Program) -> tuple[set[str], float]:
    """What the callers were told, and the longest they had to wait for it (seconds)."""
    lines = [line for caller in callers for line in re.findall(r"^accepted (\S+) (\S+)$", caller.text(), re.MULTILINE)]
    return {effect_id for effect_id, _ in lines}, max(float(seconds) for _, seconds in lines)


def _stop(*callers: Program) -> None:
    for caller in callers:
        assert caller.stop(30) == 0, "no caller met an error"
        assert "Traceback" not in caller.text()


@on_both_brokers
def test_an_upgrade_under_load_loses_and_doubles_nothing(system: System, old_tree: Path, seed: int) -> None:
    print(f"COUNTERFOIL_TEST_SEED={seed} python -m pytest -m slow tests/chaos/test_rolling_upgrade.py")
    draw = random.Random(seed)
    old = Old(system, old_tree)
    relay, workers = old.relay(), [old.worker(), old.worker("prefork")]
    callers = [old.caller("tests.chaos.releases", "old", "0")]
    _goes_on(system)
    turns = _upgrade(system)
    assert _head(system) > HEAD_OF_0_1_0
    _goes_on(system)  # the old code on the new tables
    new = [system.ready(system.worker(concurrency=2)), system.ready(system.worker("prefork", concurrency=2))]
    _goes_on(system)
    system.relay()
    callers.append(system.start("caller-new", ["tests.chaos.releases", "new", "0"]))
    for program in draw.sample([*workers, relay], 3):
        program.kill()
        _goes_on(system, 10)
    _stop(*callers)
    books = _calm(system)
    told, longest = _accepted(*callers)
    assert told <= set(books.effects)
    assert all(worker.code is None for worker in new)
    print(
        f"{len(books.effects)} effects, {len(books.outbox)} parked; longest accept {longest:.2f} s; {turns} upgrade runs"
    )
    book.record("upgrade", "0.1.0 to today", broker=system.wire.name, seed=seed, kills=3, intents=len(books.effects),
                fault_migration=1, branch_parked_idempotency_error=len(books.outbox), longest_accept_ms=int(longest * 1000))  # fmt: skip


@on_both_brokers
def test_a_canary_that_is_taken_away_again_loses_and_doubles_nothing(system: System, old_tree: Path, seed: int) -> None:
    old = Old(system, old_tree)
    old.relay()
    workers = [old.worker(), old.worker()]
    _upgrade(system)
    caller = old.caller("tests.chaos.releases", "old", "0")
    _goes_on(system)
    for _ in range(3):
        canary = system.ready(system.worker(concurrency=2))
        _goes_on(system)
        canary.kill()
        _goes_on(system)
    _stop(caller)
    books = _calm(system)
    assert _accepted(caller)[0] <= set(books.effects)
    assert all(worker.code is None for worker in workers)
    book.record("upgrade", "canary taken back", broker=system.wire.name, seed=seed, kills=3, intents=len(books.effects),
                fault_back_out=1, branch_parked_idempotency_error=len(books.outbox))  # fmt: skip


@pytest.mark.parametrize("forth", [True, False], ids=["old then new", "new then old"])
@pytest.mark.parametrize(("route", "state"), [("create", "parked"), ("confirm", "succeeded"), ("emails", "succeeded")])
def test_what_one_version_has_begun_the_other_ends_as_the_changelog_says(
    system: System, old_tree: Path, route: str, state: str, *, forth: bool
) -> None:
    """The worker dies with the provider's answer on its way; the other version takes over."""
    old = Old(system, old_tree)
    _upgrade(system)
    system.relay()
    first = old.worker() if forth else system.ready(system.worker(concurrency=2))
    with system.held(route, when="after") as barrier:
        effect_id = system.email("begun@example.test") if route == "emails" else system.charge()
        barrier.reached()
        first.kill()
    _ = system.worker(concurrency=2) if forth else old.worker()
    system.reaches(effect_id, "succeeded", "failed", "parked")
    books = _calm(system)
    assert books.effects[effect_id]["state"] == state
    assert system.charged(effect_id) == (route == "confirm")
    book.record(
        "upgrade", f"{route} {'old then new' if forth else 'new then old'}", broker=system.wire.name, kills=1, intents=1
    )


def test_new_code_that_comes_before_its_tables_sends_nothing_says_what_to_do_and_goes_on_after(
    system: System, old_tree: Path
) -> None:
    """A deploy in the wrong order. A relay ended with "a bug of ours"; it waits, as for a database that is away."""
    old = Old(system, old_tree)
    assert old.caller("tests.chaos.releases", "early", "2").wait(30) == 0
    worker, relay = system.ready(system.worker(concurrency=2)), system.relay()
    system.until(lambda: _says_what_to_do(relay), "the relay says what to do")
    for effect in system.sql("select id, kind from effects"):
        system.wire.put(effect["kind"], task(effect["kind"]), body(effect_ids=[str(effect["id"])]))
    system.until(lambda: _says_what_to_do(worker), "the worker says what to do")
    assert {effect["attempt"] for effect in system.oracle.books().effects.values()} == {0}
    _upgrade(system)
    books = _calm(system)
    assert not books.outbox
    assert worker.code is relay.code is None
    book.record(
        "upgrade", "code before its tables", broker=system.wire.name, intents=len(books.effects), fault_wrong_order=2
    )


def _says_what_to_do(program: Program) -> bool:
    return any("counterfoil db upgrade" in str(line.get("error")) for line in program.lines())


def test_without_the_key_an_upgrade_finds_the_double_charge(system: System, old_tree: Path) -> None:
    """The proof can fail: a new worker that makes keys of its own, after an old one whose answer was lost."""
    old = Old(system, old_tree)
    _upgrade(system)
    system.relay()
    first = old.worker()
    with system.held("confirm", when="after") as barrier:
        effect_id = system.charge()
        barrier.reached()
        first.kill()
    system.worker(concurrency=2, **without("no_recovery_point"))
    system.settles(effect_id)
    assert any(x.startswith("I1") and "charged 2 times" in x for x in system.oracle.violations())
