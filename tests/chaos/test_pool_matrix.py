"""Every pool of Celery on both brokers, under load, with its workers killed, stopped warmly and their messages lost.

What differs from pool to pool is how soon a blow is repaired (docs/guarantees.md, Pools and brokers), never the books.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.chaos import book
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.test_pools import POOLS, on_both_brokers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CHARGES_EACH_BLOW = 12
DECLINED_EACH_BLOW = 2
BLOWS = 4
CALM_SECONDS = 90.0
STOP_SECONDS = 40.0
# On Redis it takes as many messages as it has places, then waits for two seconds (Celery's loop without an event hub).
PLACES = {"gevent": 20}


class Load:
    """One worker under load; what dies is started again in the same pool."""

    def __init__(self, system: System, pool: str, draw: random.Random) -> None:
        self.system = system
        self.pool = pool
        self.draw = draw
        self.kills = 0
        self.stops = 0
        self.lost = 0
        self.worker = self._start()
        self.asked: list[str] = []

    def ask(self) -> None:
        """Charges with receipts, some declined, each batch in a transaction of its own."""
        for _ in range(CHARGES_EACH_BLOW // 4):
            self.asked += self.system.charges(4, receipt=f"{self.pool}@example.test")
        self.asked += self.system.charges(DECLINED_EACH_BLOW, card="pm_card_visa_chargeDeclined")

    def busy(self) -> None:
        """Some of it is settled and some is not, so that the blow falls into the middle."""
        n = len(self.asked) - self.draw.randint(2, CHARGES_EACH_BLOW)
        done = "select count(*) as n from effects where kind = 'charge' and settled_at is not null"
        self.system.until(lambda: self.system.sql(done)[0]["n"] >= n, f"{n} charges are settled", CALM_SECONDS)

    def kill_main(self) -> None:
        """SIGKILL to the main process alone; prefork's children are orphans for a while and may go on."""
        self.worker.kill()
        self.kills += 1
        self.worker = self._start()

    def kill_child(self) -> None:
        """SIGKILL to one of prefork's children; the other pools have none, so their only process dies."""
        children = psutil.Process(self.worker.pid).children()
        if children:
            os.kill(self.draw.choice(children).pid, signal.SIGKILL)
            self.kills += 1
        else:
            self.kill_main()

    def stop_warmly(self) -> None:
        """SIGTERM: it ends what it has begun, with exit code 0."""
        assert self.worker.stop(STOP_SECONDS) == 0
        self.stops += 1
        self.worker = self._start()

    def lose_messages(self) -> None:
        """The broker forgets everything; on RabbitMQ the queues go away under their consumers."""
        self.system.wire.empty()
        self.lost += 1
        self.kill_main()

    def _start(self) -> Program:
        worker = self.system.worker(self.pool, concurrency=PLACES.get(self.pool, 2))
        worker.expected_to_run = False
        return worker


@on_both_brokers
@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_under_load_and_under_blows_settles_everything_once(system: System, pool: str, seed: int) -> None:
    print(f"COUNTERFOIL_TEST_SEED={seed} python -m pytest -m slow tests/chaos/test_pool_matrix.py -k '{pool}'")
    system.relay()
    load = Load(system, pool, random.Random(seed))
    blows: list[Callable[[], None]] = [load.kill_main, load.kill_child, load.stop_warmly, load.lose_messages]
    load.draw.shuffle(blows)
    assert len(blows) == BLOWS
    for blow in blows:
        load.ask()
        load.busy()
        blow()
    system.settles(*load.asked, seconds=CALM_SECONDS)
    books = system.oracle.check()
    states = [books.effects[effect_id]["state"] for effect_id in load.asked]
    assert states.count("failed") == BLOWS * DECLINED_EACH_BLOW
    assert states.count("succeeded") == BLOWS * CHARGES_EACH_BLOW
    assert len(books.letters) == BLOWS * CHARGES_EACH_BLOW
    assert load.worker.code is None
    book.record("pools", pool, broker=system.wire.name, seed=seed, kills=load.kills, intents=len(books.effects),
                fault_warm_stop=load.stops, fault_messages_lost=load.lost)  # fmt: skip


@on_both_brokers
@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_told_to_stop_in_the_middle_of_a_call_ends_it_in_every_pool(system: System, pool: str) -> None:
    """W7: SIGTERM between the request and its answer; the attempt is the first and the last."""
    for name in ("PROVIDER_DEADLINE", "LEASE", "REDELIVERY"):  # the call is held for as long as it takes
        del system.settings[name]
    system.relay()
    worker = system.ready(system.worker(pool, concurrency=2))
    with system.held("confirm", when="before") as barrier:
        effect_id = system.charge(receipt="warm@example.test")
        barrier.reached()
        worker.signal(signal.SIGTERM)
        barrier.release()
    assert worker.wait(STOP_SECONDS) == 0
    assert system.state(effect_id) == "succeeded"
    assert system.effect(effect_id)["attempt"] == 1
    system.worker(pool, concurrency=2)
    system.settles(effect_id)
    system.oracle.check()
    book.record("pools", f"{pool} stopped warmly", broker=system.wire.name, intents=2, fault_warm_stop=1)
