"""Real processes and brokers without one guard, or without the pair that covers for each other: the harm is seen.

Where the outbox row covers for the broker's promises, each of the two may be missing alone, and both together lose the
charge: that is what defence in depth means, shown and not claimed.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.test_negative_controls import broken, without
from tests.flow.waiting import until
from tests.flow.wires import ValkeyWire, body, task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
_ROW = "delete_on_publish"
on_rabbitmq = pytest.mark.parametrize("wire", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)], indirect=True)


def _relay(system: System, guard: str = "", **more: str) -> Program:
    return system.start("relay", ["service", "relay"], **(without(guard) if guard else {}), **more)


def _is_lost(system: System, effect_id: str) -> bool:
    """Whether nothing will ever come of it: what was accepted after it is settled, and no row and no message is left."""
    system.settles(system.charge())
    return system.state(effect_id) == "pending" and broken(system, "I7")


@on_rabbitmq
@pytest.mark.parametrize("guards", ["acks_early", _ROW, f"acks_early,{_ROW}"])
def test_w5_a_message_whose_worker_dies_before_the_claim_is_lost_without_acks_late_and_row(
    system: System, guards: str
) -> None:
    effect_id = system.charge()
    worker = system.ready(system.worker(concurrency=1, **without(guards)))
    with system.locked(effect_id) as lock:
        relay = _relay(system, guards)
        lock.reached()
        worker.kill()
        lock.forget_waiters()
    if "," in guards:
        relay.kill()
        system.relay()
        system.worker()
        assert _is_lost(system, effect_id)
    else:
        system.worker(**without(guards))
        system.settles(effect_id)


@pytest.mark.parametrize("guards", ["acks_the_lost", _ROW, f"acks_the_lost,{_ROW}"])
def test_a_message_whose_child_is_killed_is_lost_without_reject_and_row(system: System, guards: str) -> None:
    effect_id = system.charge()
    worker = system.ready(system.worker("prefork", concurrency=1, **without(guards)))
    with system.locked(effect_id) as lock:
        relay = _relay(system, guards)
        lock.reached()
        [child] = psutil.Process(worker.pid).children()
        os.kill(child.pid, signal.SIGKILL)
        lock.forget_waiters()
    if "," in guards:
        relay.kill()
        system.relay()
        assert _is_lost(system, effect_id)
    else:
        system.settles(effect_id)


@on_rabbitmq
def test_w4_without_the_confirm_a_message_nobody_stored_counts_as_published(system: System) -> None:
    _relay(system, "no_confirm")
    first = system.charge()
    system.until(lambda: system.wire.waiting("charge"), "the first message is stored")
    system.wire.empty()  # the queue is gone, and the relay's connection stands
    second = system.charge()
    system.until(lambda: (system.outbox(second) or {}).get("deliveries", 0) > 1, "it was published twice")
    assert system.wire.waiting("charge") == 0
    row = system.outbox(second)
    assert row
    assert row["last_error"] is None, "nobody was told"
    # The row covers for it: a worker declares its queue, and what comes due again is stored.
    system.worker()
    system.settles(first, second)
    system.oracle.check()


def test_without_the_window_the_whole_backlog_is_in_the_broker(system: System) -> None:
    effects = system.charges(20)
    _relay(system, "no_window", WINDOW="3")
    system.until(
        lambda: system.sql("select count(*) from outbox where road = 'published'")[0]["count"] == len(effects),
        "all of the backlog is published, whatever the window says",
    )


def test_without_the_look_at_list_items_one_foreign_item_ends_the_worker(system: System) -> None:
    worker = system.ready(system.worker(**without("no_item_check")))
    worker.expected_to_run = False
    assert isinstance(system.wire, ValkeyWire)
    system.wire.push("charge", b"garbage")
    until(lambda: worker.code is not None, "the worker has ended by one foreign item")


def test_without_not_before_a_forged_message_charges_an_hour_early(system: System) -> None:
    later = system.charge(countdown=3600)
    system.worker(**without("no_time"))
    system.wire.put("charge", task("charge"), body(effect_ids=[later]))
    system.until(lambda: system.charged(later) == 1, "the card was charged an hour early")


def test_without_the_order_a_refund_is_sent_before_its_charge(system: System) -> None:
    from tasks import task_of

    charge = system.charge(countdown=3600)
    wish = {"charge": charge, "amount": 10, "currency": "eur"}
    refund = str(task_of("refund").apply_async(kwargs=wish, dedupe_key="guards:refund").id)
    system.relay()
    system.worker(**without("ready_at_once"))
    system.until(lambda: "claimed" in system.facts(refund), "the refund has begun before its charge")
    assert system.state(charge) == "pending"


def test_without_the_gate_a_database_of_another_life_charges(system: System) -> None:
    system.relay()
    system.worker(**without("no_gate"))
    first = system.charge()
    system.settles(first)
    system.sql("alter table incarnations disable trigger user")
    system.sql("update incarnations set timeline = timeline - 1")
    second = system.charge()
    system.wire.put("charge", task("charge"), body(effect_ids=[second]))
    system.until(lambda: system.charged(second) == 1, "a promoted replica has charged")
