"""A storm: callers ask, everything is killed, paused, emptied and cut at random, then calm, then the oracle.

One seed decides all blows; the run prints it with the command that repeats it. Time itself is not repeated, so the
same seed gives the same blows in the same order and not the same instants.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("COUNTERFOIL_TEST_ROUNDS", "40"))
CHARGES_EACH_ROUND = 5
DECLINES_EVERY = 9
POOLS = ("threads", "threads", "prefork", "solo")
GAP_SECONDS = (0.1, 0.9)  # between two blows: shorter than a lease, so that recovery itself is hit
CALM_SECONDS = 90.0
_HTTP_FAULTS = ("close_before", "close_after", "status_429", "conflict_409", "status_502_html", "truncate", "drip")
# A 500 that is stored under the key is replayed for as long as the key lives, so the same key can never settle it: a
# letter or a create stands as `unknown`, visibly, until it can be looked up. A confirm is settled by its PaymentIntent.
_CONFIRM_FAULTS = (*_HTTP_FAULTS, "status_500_stored_after")


class Storm:
    """The house under fire; what dies is started again, as a supervisor would."""

    def __init__(self, system: System, choose: random.Random) -> None:
        self.system = system
        self.choose = choose
        self.relays = [system.relay() for _ in range(2)]
        self.workers = [self._worker() for _ in range(2)]
        self.struck: Counter[str] = Counter()
        self._paused: list[tuple[Program, Callable[[], bool]]] = []

    def blow(self) -> None:
        blows = [self.kill_worker, self.kill_worker, self.kill_relay, self.pause_worker, self.fault, self.fault,
                 self.mail_fault, self.empty_broker, self.crash_provider, self.cut_database]  # fmt: skip
        chosen = self.choose.choice(blows)
        chosen()
        self.struck[chosen.__name__] += 1
        self.wake()

    def kill_worker(self) -> None:
        place = self.choose.randrange(len(self.workers))
        self.workers[place].end()
        self.workers[place] = self._worker()

    def kill_relay(self) -> None:
        place = self.choose.randrange(len(self.relays))
        self.relays[place].end()
        self.relays[place] = self.system.relay()

    def pause_worker(self) -> None:
        """A zombie: it wakes long after its lease."""
        worker = self.choose.choice(self.workers)
        worker.signal(signal.SIGSTOP)
        self._paused.append((worker, age(self.choose.uniform(1, 6))))

    def fault(self) -> None:
        route = self.choose.choice(["create", "confirm", "retrieve"])
        faults = _CONFIRM_FAULTS if route == "confirm" else _HTTP_FAULTS
        self.system.stripe.fault(self.choose.choice(faults), route=route, times=self.choose.randint(1, 3))

    def mail_fault(self) -> None:
        self.system.mail.fault(self.choose.choice(_HTTP_FAULTS), route="emails", times=self.choose.randint(1, 3))

    def empty_broker(self) -> None:
        if isinstance(self.system.wire, ValkeyWire):
            self.system.wire.empty()

    def crash_provider(self) -> None:
        fake = self.choose.choice([self.system.stripe, self.system.mail])
        fake.kill()
        fake.start()

    def cut_database(self) -> None:
        """Every connection of ours is gone, with whatever ran on it."""
        self.system.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )

    def wake(self, *, all_of_them: bool = False) -> None:
        for item in list(self._paused):
            worker, over = item
            if all_of_them or over():
                worker.signal(signal.SIGCONT)
                self._paused.remove(item)

    def _worker(self) -> Program:
        worker = self.system.worker(self.choose.choice(POOLS))
        worker.expected_to_run = False
        return worker


@on_both_brokers
def test_after_a_storm_every_charge_happened_once_or_was_declined(system: System, seed: int) -> None:
    print(f"COUNTERFOIL_TEST_SEED={seed} python -m pytest -m slow tests/chaos")
    choose = random.Random(seed)
    asked: list[str] = []
    with ExitStack() as end:
        storm = Storm(system, choose)
        end.callback(storm.wake, all_of_them=True)
        for turn in range(ROUNDS):
            card = "pm_card_visa_chargeDeclined" if turn % DECLINES_EVERY == 0 else "pm_card_visa"
            asked += _charges(system, card, f"storm-{turn}@example.test")
            storm.blow()
            system.until(age(choose.uniform(*GAP_SECONDS)), "the next blow is due")
    for fake in (system.stripe, system.mail):
        fake.reset()
    open_ones = "select id, state, attempt from effects where state not in ('succeeded', 'failed', 'parked')"
    system.until(lambda: not system.sql(open_ones), "all is settled or waits for a person", CALM_SECONDS)
    books = system.oracle.check()
    print(dict(storm.struck), Counter(effect["state"] for effect in books.effects.values()))
    assert set(asked) <= set(books.effects)
    assert not [e for e in books.effects.values() if e["state"] == "parked"]


def _charges(system: System, card: str, receipt: str) -> list[str]:
    from service.core.errors import DependencyUnavailable

    # A caller whose connection was cut asks for new ones; what it had asked for in vain counts all the same if its
    # commit went through.
    for _ in range(20):
        try:
            return system.charges(CHARGES_EACH_ROUND, card=card, receipt=receipt)
        except DependencyUnavailable:
            continue
    raise AssertionError("the database did not come back")
