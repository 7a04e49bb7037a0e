"""Genuine messages at the wrong time: a hundred copies, any order, days late, after the end, after the payload is gone.

The message is a hint (W4): when an effect is due, who holds it and what it says stands in Postgres.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos import book
from tests.chaos.messages.corpus import Bad
from tests.chaos.messages.post import send
from tests.contract.fake_servers import FakeServer, running
from tests.flow.nursery import Nursery
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers
from tests.flow.waiting import until
from tests.flow.wires import Wire, body, task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
COPIES = 100
ORDERS = 24
CALM_SECONDS = 90.0
# What was accepted and sent is kept from a test's hand as well, as long as this is not said.
_UNGUARDED, _GUARDED = "alter table {} disable trigger user", "alter table {} enable trigger user"


@pytest.fixture
def aged_system(database: str, wire: Wire, mail_fake: FakeServer, nursery: Nursery, tmp_path: Path) -> Iterator[System]:
    """With a Stripe of its own, whose clock may be moved."""
    with running("stripe", tmp_path / "stripe") as stripe:
        made = System(database, wire, stripe, mail_fake, nursery, tmp_path)
        try:
            yield made
        finally:
            made.close()


def _put(system: System, kind: str, *effect_ids: str, times: int = 1, lane: str | None = None) -> None:
    send(system.wire, [Bad(kind, "", task(kind), body(effect_ids=list(effect_ids)), lane=lane or kind)] * times)


def _days_pass(system: System, days: float) -> None:
    """For the database every moment lies further back, for Stripe the clock goes on; it forgets its keys."""
    moments = {
        "effects": ("created_at", "not_before", "lease_until", "first_sent_at", "patience_from", "settled_at"),
        "outbox": ("available_at", "parked_at"),
        "journal": ("at",),
    }
    with psycopg.connect(system.database) as db:
        for table, columns in moments.items():
            db.execute(_UNGUARDED.format(table))
            moved = ", ".join(f"{column} = {column} - %(past)s * interval '1 day'" for column in columns)
            db.execute(f"update {table} set {moved}", {"past": days})
            db.execute(_GUARDED.format(table))
    system.stripe.advance(days * 24)


@on_both_brokers
def test_a_hundred_copies_of_a_message_while_it_is_performed_and_after_do_nothing(system: System) -> None:
    for name in ("PROVIDER_DEADLINE", "LEASE", "REDELIVERY"):  # the calls are held for as long as it takes
        del system.settings[name]
    relay = system.relay()
    workers = [system.ready(system.worker(concurrency=4)), system.ready(system.worker("prefork", concurrency=2))]
    with system.held("confirm", when="before", times=3) as barrier:
        paid = [system.charge(receipt="copies@example.test") for _ in range(3)]
        barrier.reached(3)
        relay.kill()
        for effect_id in paid:
            _put(system, "charge", effect_id, times=COPIES)
        _put(system, "charge", *paid, times=COPIES)
        until(
            lambda: not system.wire.waiting("charge"),
            "the copies are taken while the calls are under way",
            CALM_SECONDS,
        )
    for effect_id in paid:
        system.reaches(effect_id, "succeeded", seconds=CALM_SECONDS)
    for effect_id in paid:
        _put(system, "charge", effect_id, times=COPIES)
    system.relay()
    system.settles(*paid, seconds=CALM_SECONDS)
    for effect_id in paid:
        assert len(system.asked(effect_id, "create")) == len(system.asked(effect_id, "confirm")) == 1
        assert system.effect(effect_id)["attempt"] == 1
    system.oracle.check()
    assert all(worker.code is None for worker in workers)
    copies = COPIES * (2 * len(paid) + 1)
    book.record("message faults", "copies", broker=system.wire.name, points=copies, intents=6, fault_duplicated=copies)


@on_both_brokers
def test_messages_in_any_order_end_the_same(system: System, seed: int) -> None:
    """Refunds before their charges, receipts' charges last, each message twice; no order on the wire is relied upon."""
    from tasks import refund

    print(f"COUNTERFOIL_TEST_SEED={seed} python -m pytest -m slow tests/chaos/test_message_times.py -k any_order")
    draw = random.Random(seed)
    paid = [system.charge(receipt="order@example.test") for _ in range(ORDERS)]
    wishes = [{"charge": effect_id, "amount": 100 + n, "currency": "eur"} for n, effect_id in enumerate(paid)]
    back = [str(refund.apply_async(kwargs=w, dedupe_key=f"order:{w['charge']}:back").id) for w in wishes]
    shuffled = [("charge", effect_id) for effect_id in paid * 2] + [("refund", effect_id) for effect_id in back * 2]
    draw.shuffle(shuffled)
    send(system.wire, [Bad(kind, "", task(kind), body(effect_ids=[effect_id])) for kind, effect_id in shuffled])
    worker = system.ready(system.worker(concurrency=4))
    until(lambda: not system.wire.waiting("charge"), "the backlog is taken", CALM_SECONDS)
    system.relay()
    system.settles(*paid, *back, seconds=CALM_SECONDS)
    books = system.oracle.check()
    assert {effect["state"] for effect in books.effects.values()} == {"succeeded"}
    assert worker.code is None
    book.record("message faults", "any order", broker=system.wire.name, seed=seed, points=len(shuffled),
                intents=len(books.effects), fault_reordered=len(shuffled))  # fmt: skip


@on_both_brokers
@pytest.mark.parametrize(("days", "state"), [(2, "succeeded"), (4, "parked")])
def test_a_message_that_comes_days_late_charges_nobody_twice(aged_system: System, days: int, state: str) -> None:
    """One effect was settled, one answered into nowhere (W8), one never begun; Stripe has forgotten every key.

    Past COUNTERFOIL_AGE_LIMIT, three days, what was in doubt waits for a person; what was never sent has no age.
    """
    system = aged_system
    relay, worker = system.relay(), system.worker(concurrency=2)
    settled = system.charge()
    system.settles(settled)
    with system.held("confirm", when="after") as barrier:
        lost = system.charge()
        barrier.reached()
        worker.kill()
        relay.kill()
    never = system.charge()
    system.wire.empty()
    _days_pass(system, days)
    system.ready(system.worker(concurrency=2))
    for effect_id in (settled, lost, never):
        _put(system, "charge", effect_id, times=3)
    system.reaches(lost, "succeeded", "parked", seconds=CALM_SECONDS)
    system.reaches(never, "succeeded", seconds=CALM_SECONDS)
    books = system.oracle.check()
    assert [system.charged(effect_id) for effect_id in (settled, lost, never)] == [1, 1, 1]
    assert books.effects[lost]["state"] == state
    assert books.effects[settled]["attempt"] == 1
    book.record(
        "message faults", f"{days} days late", broker=system.wire.name, points=9, kills=2, intents=3, fault_delayed=9
    )


@on_both_brokers
def test_a_message_that_comes_after_its_payload_was_purged_does_nothing(system: System) -> None:
    """A settled effect keeps its key for ever and may lose its request; an unsettled one may not, not even by hand."""
    from tasks import refund

    system.relay()
    worker = system.ready(system.worker(concurrency=2))
    paid, open_one = system.charge(receipt="purged@example.test"), system.charge(countdown=86_400)
    system.settles(paid)
    with psycopg.connect(system.database) as db:
        db.execute(_UNGUARDED.format("effects"))
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute("update effects set request = null where id = %s", (open_one,))
    system.sql("update effects set request = null where settled_at is not null")
    letter = system.sql("select id from effects where caused_by = %s", paid)[0]["id"]
    before = system.facts(paid)
    _put(system, "charge", paid, times=COPIES)
    _put(system, "email", str(letter), times=COPIES)
    wish = {"charge": paid, "amount": 100, "currency": "eur"}
    back = str(refund.apply_async(kwargs=wish, dedupe_key="purged:back").id)  # behind the late ones, and of use
    system.settles(back)
    assert system.state(back) == "succeeded"
    assert system.facts(paid) == before
    books = system.oracle.books()
    assert len(books.money_of[paid]) == 1
    assert len(books.letters) == 1
    assert not [line for line in worker.lines() if line["level"] in ("error", "critical")]
    assert worker.code is None
    book.record(
        "message faults",
        "after the purge",
        broker=system.wire.name,
        points=2 * COPIES,
        intents=4,
        fault_purged=2 * COPIES,
    )
