"""The database goes back in time, with everything running: nothing is sent before the release, and nothing twice after.

A replica that lags is promoted (commits are lost, a new timeline begins), a backup is restored to a point, an old copy of
the files is put back on the same timeline. The fake provider's own sequence numbers are the clock.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.drill import TIMES, WAYS, Drill
from tests.chaos.lineage import lineage
from tests.conftest import forget_process_state
from tests.contract.fake_servers import FakeServer, running
from tests.flow.nursery import Nursery
from tests.flow.system import System
from tests.flow.test_negative_controls import without
from tests.flow.wires import ValkeyWire

pytestmark = pytest.mark.timeout(300)
slow = pytest.mark.slow


@pytest.fixture
def drill(
    valkey_wire: ValkeyWire,
    mail_fake: FakeServer,
    nursery: Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Drill]:
    # A fake of its own: what other tests have left at the provider would be orphans, too.
    with lineage() as database, running("stripe", tmp_path / "stripe") as stripe_fake:
        monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", database.url)
        monkeypatch.setenv("COUNTERFOIL_STATE_DIR", str(tmp_path))
        forget_process_state()
        from service.store import schema

        schema.upgrade()
        system = System(database.url, valkey_wire, stripe_fake, mail_fake, nursery, tmp_path)
        system.settings |= TIMES
        try:
            yield Drill(system, database)
        finally:
            forget_process_state()
            system.close()
            forget_process_state()


def says_ready(drill: Drill) -> str:
    """What `/readyz` answers, with 200: the process stays in service."""
    [program] = [program for program in drill.system.programs if program.name == "api"]
    drill.system.until(lambda: "http://127.0.0.1:" in program.text(), "the API listens")
    port = program.text().partition("http://127.0.0.1:")[2].split("/")[0].split('"')[0].split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    "way", ["failover", pytest.param("point-in-time", marks=slow), pytest.param("old-copy", marks=slow)]
)
def test_after_lost_commits_nothing_is_sent_before_the_release_and_nothing_twice_after(drill: Drill, way: str) -> None:
    chosen = WAYS[way]
    drill.system.start("api", ["service", "api", "--port", "0"])
    chosen.prepare(drill.database)
    before = drill.database.timeline()
    at_the_provider = drill.load(chosen, kept=6, forgotten=4, lost=6)
    with ExitStack() as held:
        # One whose create is on its way when the database dies: its attempt ends at the recovery point.
        barrier = held.enter_context(drill.system.held("create"))
        drill.ask("on-its-way:0")
        barrier.reached()
        seq = drill.last_seq()
        chosen.strike(drill.database)
        assert (drill.database.timeline() > before) == (way != "old-copy")
    drill.noticed()
    drill.ask("lost:0", "lost:1", "new:0")  # accepted as ever, two of them for money that has moved
    drill.nothing_is_sent_after(seq)
    assert "quarantined: " in says_ready(drill)
    code, checks = drill.command("doctor")
    assert code == 1
    assert [check["ok"] for check in checks["checks"] if check["name"] == "life"] == [False]

    code, plan = drill.command("recover")
    assert (code, plan["quarantined"], plan["orphans_with_money"]) == (0, True, len(drill.lost))
    drill.nothing_is_sent_after(seq)
    code, done = drill.command("recover", "--execute", "--reason", "the drill")
    assert (code, done["orphans_with_money"]) == (0, len(drill.lost))
    assert {row["provider_ref"] for row in done["orphans_listed"]} >= refs(drill, at_the_provider)
    asked = drill.requests()
    last_look = max(row["seq"] for row in asked if row["method"] == "GET" and row["path"].startswith("/v1/refunds"))
    assert [row for row in drill.sends_after(seq) if row["seq"] < last_look] == [], "sent between restore and release"

    drill.everybody_repeats()
    drill.everything_settles()
    assert drill.movements() == dict.fromkeys((key for key in drill.keys if key != "scheduled:0"), 1)
    books = drill.oracle_agrees()
    assert {effect["state"] for effect in books.effects.values()} == {"succeeded", "pending"}
    assert drill.system.effect(drill.keys["scheduled:0"])["in_doubt"] is False
    open_breaks = drill.system.sql("select class, subject from breaks where closed_at is null")
    assert open_breaks == [], "every orphan was adopted"


def refs(drill: Drill, ids: dict[str, str]) -> set[str]:
    """The PaymentIntents of effects that the database has lost, by the provider's own books."""
    lost = {effect_id for key, effect_id in ids.items() if key in drill.lost}
    rows = drill.system.stripe.admin("ledger")["money"]
    return {row["payment_intent"] for row in rows if row["metadata"].get("effect_id") in lost}


def test_without_the_gate_the_same_drill_charges_twice(drill: Drill) -> None:
    """What every system does that believes its database."""
    way = WAYS["failover"]
    way.prepare(drill.database)
    drill.load(way, kept=1, forgotten=0, lost=2)
    for program in drill.system.programs:
        program.end()
    way.strike(drill.database)
    drill.system.relay(**without("no_gate"))
    drill.system.worker(**without("no_gate"))
    drill.settled(drill.ask("lost:0"))
    assert drill.movements()["lost:0"] == 2
