"""Every pool of Celery on both brokers: the main job, and SIGKILL at the worst moment.

Which process dies does not matter here and is not Celery's doing: the lease runs out, the row comes due, and the
provider is asked under the same key.
"""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import pytest

from tests.flow.system import System

POOLS = ("prefork", "threads", "gevent", "solo")
AT_ONCE = {("prefork", "rabbitmq"), ("threads", "valkey"), ("gevent", "valkey"), ("solo", "rabbitmq")}
_rabbit = pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)
on_both_brokers = pytest.mark.parametrize("wire", ["valkey", _rabbit], indirect=True)


def each_pool_on_each_broker() -> list[Any]:
    """Each pool and each broker in `make test`, every pair in `make chaos`."""
    return [
        pytest.param(
            pool,
            wire,
            marks=[pytest.mark.rabbitmq] * (wire == "rabbitmq") + [pytest.mark.slow] * ((pool, wire) not in AT_ONCE),
        )
        for pool in POOLS
        for wire in ("valkey", "rabbitmq")
    ]


@pytest.mark.parametrize(("pool", "wire"), each_pool_on_each_broker(), indirect=["wire"])
def test_a_worker_killed_right_after_the_ledger_shows_the_charge(system: System, pool: str) -> None:
    """And before that, the plain main job: a charge and its receipt."""
    system.relay()
    worker = system.worker(pool, concurrency=2)
    plain = system.charge(receipt="plain@example.test")
    system.settles(plain)
    with system.held("confirm", when="after") as barrier:
        killed = system.charge(receipt="killed@example.test")
        barrier.reached()
        assert system.charged(killed) == 1
        assert system.state(killed) == "executing"
        worker.kill()
    system.worker(pool, concurrency=2)
    system.settles(killed)
    books = system.oracle.check()
    assert system.charged(killed) == 1
    assert sorted(letter["recipient"] for letter in books.letters) == ["killed@example.test", "plain@example.test"]


@on_both_brokers
def test_a_prefork_child_killed_in_the_middle_of_a_charge_leaves_its_worker_at_work(system: System) -> None:
    system.relay()
    worker = system.worker("prefork", concurrency=2)
    with system.held("confirm", when="after") as barrier:
        effect_id = system.charge(receipt="child@example.test")
        barrier.reached()
        os.kill(_claimant(system, effect_id), signal.SIGKILL)
    system.settles(effect_id)
    system.oracle.check()
    assert worker.code is None


def test_a_paused_worker_that_wakes_after_its_lease_writes_no_state(system: System) -> None:
    """I9: SIGSTOP past the lease, takeover by another worker, SIGCONT."""
    system.relay()
    zombie = system.worker()
    with system.held("confirm", when="before") as barrier:
        effect_id = system.charge(receipt="zombie@example.test")
        barrier.reached()
        with zombie.paused():
            barrier.release()
            heir = system.worker()
            system.settles(effect_id)
            settled = system.effect(effect_id)
        system.until(lambda: "late_answer" in system.facts(effect_id), "the zombie has said what it knows")
    system.oracle.check()
    assert system.effect(effect_id) == settled
    assert system.charged(effect_id) == 1
    assert zombie.code is None
    assert heir.code is None
    [late] = system.sql("select attempt from journal where effect_id = %s and fact = 'late_answer'", effect_id)
    assert late["attempt"] < settled["attempt"]


def test_an_effect_that_kills_its_worker_each_time_is_parked_and_the_others_go_on(system: System) -> None:
    system.relay(ATTEMPT_BUDGET="3")
    worker = system.worker("prefork", concurrency=2, ATTEMPT_BUDGET="3")
    [poison] = system.charges(1)
    with system.held("create", poison, times=9) as barrier:
        for attempt in range(1, 4):
            system.until(lambda n=attempt: system.effect(poison)["attempt"] == n, f"attempt {attempt} has begun")
            barrier.reached()
            os.kill(_claimant(system, poison), signal.SIGKILL)
            barrier.release()
        others = system.charges(3)
        system.settles(*others)
        system.reaches(poison, "parked")
    system.oracle.check()
    row = system.outbox(poison)
    assert row is not None
    assert row["parked_reason"] == "attempt_budget"
    assert system.charged(poison) == 0
    assert worker.code is None


def test_a_worker_told_to_stop_finishes_what_it_has_begun(system: System) -> None:
    system.relay()
    worker = system.worker()
    with system.held("confirm", when="before") as barrier:
        effect_id = system.charge()
        barrier.reached()
        worker.signal(signal.SIGTERM)
        barrier.release()
    assert worker.wait() == 0
    assert system.state(effect_id) == "succeeded"
    system.oracle.check()


def test_a_broker_emptied_with_messages_in_flight_loses_no_effect(system: System) -> None:
    system.relay()
    system.worker(concurrency=2)
    with system.held("confirm", when="before", times=2) as barrier:
        effect_ids = list(itertools.chain.from_iterable(system.charges(10) for _ in range(4)))
        barrier.reached(2)
        system.wire.empty()
    system.settles(*effect_ids)
    system.oracle.check()


def _claimant(system: System, effect_id: str) -> int:
    """The process that holds the newest attempt, by the journal."""
    claims = system.sql(
        "select actor from journal where effect_id = %s and fact = 'claimed' order by id desc limit 1", effect_id
    )
    return int(claims[0]["actor"].rpartition(":")[2])
