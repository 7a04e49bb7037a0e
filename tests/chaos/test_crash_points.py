"""A worker's child is killed right before and right after each of its socket and pipe calls; every effect happens once.

N = 1, 2, 3 … until the N-th call does not come any more; the oracle after each kill; every label of an undisturbed run
must have been hit. The controls take a guard out, and the same kills must find a double charge: else this proves nothing.
A seed decides what is drawn; COUNTERFOIL_TEST_SEED repeats a draw, COUNTERFOIL_TEST_POINT=N one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow 'tests/chaos/test_crash_points.py' -k 'newborn and charge'

The processes around the child, the main process and the relay, are the matter of test_crash_mains.
"""

from __future__ import annotations

import random

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import every_point, judge, tell
from tests.chaos.points.family import Family
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.subjects import SUBJECTS
from tests.flow.system import System

__all__ = ["armed_system", "armoury"]
pytestmark = pytest.mark.timeout(900)
KILLS = [Mode.BEFORE, Mode.AFTER]
SAMPLE = 4
# The calls after an effect is settled may come a moment too late to be counted.
LAST_CALLS = 4

kills = pytest.mark.parametrize("mode", KILLS, ids=lambda mode: mode.name.lower())
BOTH = ("valkey", "rabbitmq")
CONNECTING = ("charge", "refund", "blind_again")
# An only child from both sides on both brokers. With siblings, and newborn, from one side on each: a kill before call
# n + 1 finds the world as a kill after call n does. How connections are made is the same for all.
CASES = [
    *((subject, "only child", mode, broker) for subject in SUBJECTS for mode in KILLS for broker in BOTH),
    *((subject, "siblings", mode, broker) for subject in SUBJECTS for mode, broker in zip(KILLS, BOTH, strict=True)),
    *((subject, "newborn", mode, broker) for subject in CONNECTING for mode, broker in zip(KILLS, BOTH, strict=True)),
]
slow = pytest.mark.slow


def _name(subject: str, kin: str, mode: Mode, wire: str) -> str:
    return f"{subject}-{kin.replace(' ', '_')}-{mode.name.lower()}-{wire}"


def test_a_child_killed_at_a_few_calls_of_a_charge_drawn_by_the_seed_charges_once(
    armed_system: System, armoury: Armoury, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short profile of what follows."""
    house = Family(armed_system, armoury.block, SUBJECTS["charge"])
    calls = len(house.warm_up().labels)
    points = [(n, mode) for mode in KILLS for n in range(1, calls - LAST_CALLS)]
    hit = [judge(house, n, mode, house.hit).label for n, mode in random.Random(seed).sample(points, SAMPLE)]
    assert house.kills == SAMPLE
    armed_system.oracle.check()
    record("crash points", "charge child, drawn", seed=seed, points=SAMPLE, kills=house.kills, intents=house.intents)
    tell(capsys, f"charge, child killed, seed {seed}", f"{SAMPLE} of {len(points)} points: {sorted(hit)}")


def test_without_key_and_recovery_point_the_kills_find_a_double_charge(armed_system: System, armoury: Armoury) -> None:
    """The proof can fail: the kill is the one right after the confirmation went out, or one of the next."""
    house = Family(armed_system, armoury.block, SUBJECTS["charge"], control="no_recovery_point")
    calls = house.warm_up().labels
    sent = next(n for n, label in enumerate(calls, 1) if label.endswith("/confirm") and label.startswith("send"))
    assert any(_doubled(house, n, Mode.AFTER) for n in range(sent, len(calls) + 1)), "the kills are blind"


@kills
def test_with_a_random_key_the_kills_find_a_second_refund(armed_system: System, armoury: Armoury, mode: Mode) -> None:
    """A charge is also held by its PaymentIntent, which succeeds once whatever the key; a refund has the key alone."""
    house = Family(armed_system, armoury.block, SUBJECTS["refund"], control="random_key")
    calls = house.warm_up().labels
    sent = next(n for n, label in enumerate(calls, 1) if label.endswith("/refunds") and label.startswith("send"))
    assert any(_doubled(house, n, mode) for n in range(sent, len(calls) + 1)), "the kills are blind"


def _doubled(house: Family, n: int, mode: Mode) -> bool:
    run = house.hit(n, mode)
    return any(x.startswith("I1") and "charged 2 times" in x for x in house.glance.violations(run.effect_id))


@slow
@pytest.mark.parametrize(
    ("subject", "kin", "mode", "wire"),
    CASES,
    indirect=["wire"],
    ids=[_name(*case) for case in CASES],
)
def test_a_child_killed_at_any_call_of_an_effect(
    armed_system: System, armoury: Armoury, subject: str, kin: str, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Family(armed_system, armoury.block, SUBJECTS[subject], kin=kin)
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    armed_system.oracle.check()
    broker = armed_system.wire.name
    told = f"{subject} child, {kin}, {mode.name}"
    record("crash points", told, broker=broker, points=tally.points, kills=house.kills, intents=house.intents)
    tell(capsys, f"{told}, {broker}", tally)
