"""A process is killed right before and right after each of its socket and pipe calls, and every effect happens once.

N = 1, 2, 3 … until the N-th call does not come any more; the oracle after each kill; every label of an undisturbed run
must have been hit. The controls take a guard out, and the same kills must find a double charge: else this proves nothing.
A seed decides what is drawn; COUNTERFOIL_TEST_SEED repeats a draw, COUNTERFOIL_TEST_POINT=N one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow 'tests/chaos/test_crash_points.py' -k 'warm and charge'
"""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import every_point, judge
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.house import House
from tests.chaos.points.subjects import SUBJECTS
from tests.flow.system import System

__all__ = ["armed_system", "armoury"]
pytestmark = pytest.mark.timeout(1200)
KILLS = [Mode.BEFORE, Mode.AFTER]
SAMPLE = 6
PAIRS = int(os.environ.get("COUNTERFOIL_TEST_PAIRS", "40"))
# Calls of a worker from its birth to the end of a recovery: beyond it, a second kill would never come.
RECOVERY_CALLS = 60
_BOTH_SIDES = [(kind, mode) for kind in ("charge", "refund", "keyed") for mode in KILLS]
WARM = [*_BOTH_SIDES, ("blind_once", Mode.AFTER), ("blind_again", Mode.BEFORE)]
kills = pytest.mark.parametrize("mode", KILLS, ids=lambda mode: mode.name.lower())
slow = pytest.mark.slow
pytestmark = slow  # until it has been seen calm in every run: the whole file is `make chaos`'s


def _tell(capsys: pytest.CaptureFixture[str], what: str, tally: object) -> None:
    with capsys.disabled():
        print(f"\n  {what}: {tally}")


def test_a_worker_killed_at_a_few_calls_of_a_charge_drawn_by_the_seed_charges_once(
    armed_system: System, armoury: Armoury, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short profile of what follows."""
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="worker")
    calls = len(house.warm_up().labels)
    points = [(n, mode) for mode in KILLS for n in range(1, calls)]
    drawn = random.Random(seed).sample(points, SAMPLE)
    hit = [judge(house, n, mode, house.hit).label for n, mode in drawn]
    _tell(capsys, f"charge, worker killed, seed {seed}", f"{house.kills} of {len(points)} points: {sorted(hit)}")
    assert house.kills >= SAMPLE - 1  # the last call may come a moment too late to be counted


def test_without_key_and_recovery_point_the_kills_find_a_double_charge(armed_system: System, armoury: Armoury) -> None:
    """The proof can fail: the kill is the one right after the confirmation went out."""
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="worker", control="no_recovery_point")
    calls = house.warm_up().labels
    sent = next(n for n, label in enumerate(calls, 1) if label.endswith("/confirm") and label.startswith("send"))
    found = []
    for n in range(sent, len(calls)):
        house.hit(n, Mode.AFTER)
        found = [x for x in armed_system.oracle.violations() if x.startswith("I1") and "charged 2 times" in x]
        if found:
            return
    raise AssertionError("no kill has shown that key and recovery point were gone")


@slow
@pytest.mark.parametrize(("subject", "mode"), WARM)
def test_a_warm_worker_killed_at_any_call_of_an_effect(
    armed_system: System, armoury: Armoury, subject: str, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(armed_system, armoury.block, SUBJECTS[subject], target="worker")
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    armed_system.oracle.check()
    _tell(capsys, f"{subject}, warm worker killed, {armed_system.wire.name}", tally)


@slow
@kills
def test_a_relay_killed_at_any_call_of_a_charge(
    armed_system: System, armoury: Armoury, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="relay")
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    armed_system.oracle.check()
    _tell(capsys, f"charge, relay killed, {armed_system.wire.name}", tally)


@slow
def test_pairs_a_worker_killed_and_the_one_that_takes_over_killed_as_well(
    armed_system: System, armoury: Armoury, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn by the seed: the first kill in the charge, the second between birth and end of the recovery."""
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="worker")
    calls = len(house.warm_up().labels)
    draw = random.Random(seed)
    twice = 0
    for _ in range(PAIRS):
        first, second = draw.randint(1, calls), draw.randint(1, RECOVERY_CALLS)
        pair = (first, draw.choice(KILLS), second, draw.choice(KILLS))
        twice += house.hit_twice(*pair)
        wrong = armed_system.oracle.violations()
        assert not wrong, "\n".join([f"pair {pair}; repeat with COUNTERFOIL_TEST_SEED={seed}", *wrong])
    _tell(capsys, f"charge, pairs, {armed_system.wire.name}, seed {seed}", f"{PAIRS} pairs, {twice} of them hit twice")
    assert twice > PAIRS // 4


@slow
@kills
def test_with_a_random_key_the_kills_find_a_second_refund(armed_system: System, armoury: Armoury, mode: Mode) -> None:
    """A charge is also held by its PaymentIntent, which succeeds once whatever the key; a refund has the key alone."""
    house = House(armed_system, armoury.block, SUBJECTS["refund"], target="worker", control="random_key")
    for n in range(1, len(house.warm_up().labels)):
        house.hit(n, mode)
        if any(x.startswith("I1") for x in armed_system.oracle.violations()):
            return
    raise AssertionError("no kill has shown that the key was another one each time")
