"""A process is stopped at each of its socket and pipe calls, another takes over, and the zombie wakes: it changes nothing.

SIGSTOP right before and right after the N-th call, N = 1, 2, 3 … until none is left; every label of an undisturbed run
must have been hit. A fence is what holds here and nowhere else: without it (the control below) all kills of
test_crash_points are survived and a pause is not. What a zombie may still do stands in points/pauses.py.
Repeat one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow tests/chaos/test_pause_points.py -k 'charge and midway and valkey'
"""

from __future__ import annotations

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import Tally, every_point
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.pauses import ZOMBIES, Pause, Zombies
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers

__all__ = ["armed_system", "armoury"]
pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow
PAUSES = [Mode.STOP_BEFORE, Mode.STOP_AFTER]
modes = pytest.mark.parametrize("mode", PAUSES, ids=lambda mode: mode.name.lower())
wakes = pytest.mark.parametrize("midway", [False, True], ids=["done", "midway"])


def _kept(capsys: pytest.CaptureFixture[str], house: Zombies, tally: Tally, what: str) -> None:
    """The oracle's word on everything, the book, and what was done for whoever watches."""
    house.system.oracle.check()
    broker = house.system.wire.name
    counts = {"points": tally.points, "pauses": house.stops, "intents": house.intents}
    record("pause points", what, broker=broker, **counts, branch_late_answer=house.found["late_answer"])
    with capsys.disabled():
        print(f"\n  {what}, {broker}: {tally}\n    {dict(house.found)}")


@slow
@on_both_brokers
@modes
@wakes
@pytest.mark.parametrize("subject", ["charge", "refund", "keyed", "blind_once"])
def test_a_worker_that_stands_still_at_any_call_and_wakes_past_its_lease_changes_nothing(
    armed_system: System, armoury: Armoury, subject: str, mode: Mode, midway: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Zombies(armed_system, armoury.block, ZOMBIES[subject], Pause(midway=midway))
    house.warm_up()
    tally = every_point(house, mode, house.stopped)
    _kept(capsys, house, tally, f"{subject}, worker stopped, woken when its heir is {'midway' if midway else 'done'}")
    assert house.found["late_answer"], "no zombie has come back with an answer"
