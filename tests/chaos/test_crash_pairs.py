"""Killed at any call, and the one that takes over killed at any of its calls as well: every effect happens once.

All n times m for a worker's children and a charge, on each broker; a kill before call n + 1 finds the world as a kill
after call n does, so one order of modes goes through all states. The other orders look again, and like the other subjects
they take every third or fourth cell: which ones, the seed says, and the next seeds take the others. Main process and relay are dear to start, so their
pairs are drawn by a seed. What counts is a pair of which both kills came. COUNTERFOIL_TEST_PAIR=N:M repeats one:

    COUNTERFOIL_TEST_PAIR=7:21 python -m pytest -m slow tests/chaos/test_crash_pairs.py -k 'child and charge'
"""

from __future__ import annotations

import random

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import tell
from tests.chaos.points.family import Family
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.house import House
from tests.chaos.points.pairs import Pairs, drawn_pairs, every_pair
from tests.chaos.points.subjects import SUBJECTS
from tests.flow.system import System

__all__ = ["armed_system", "armoury"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BEFORE, AFTER = Mode.BEFORE, Mode.AFTER
# With the share of the grid that one run goes through: one cell in so many. Whole they are some 8,000 pairs and an hour.
ORDERS = [
    ("charge", BEFORE, BEFORE, "valkey", 1),
    ("charge", AFTER, AFTER, "valkey", 3),
    ("charge", BEFORE, AFTER, "valkey", 3),
    ("charge", AFTER, BEFORE, "rabbitmq", 1),
    ("refund", BEFORE, BEFORE, "valkey", 3),
    ("refund", AFTER, AFTER, "rabbitmq", 3),
    ("keyed", BEFORE, BEFORE, "rabbitmq", 3),
    ("keyed", AFTER, AFTER, "valkey", 3),
    ("blind_once", AFTER, BEFORE, "valkey", 4),
    ("blind_again", BEFORE, BEFORE, "valkey", 4),
]
DRAWN = 20
# From its birth to the end of a recovery a process makes so many calls: beyond it, a second kill would never come.
RECOVERY_CALLS = {"worker": 60, "relay": 40}
both_brokers = pytest.mark.parametrize("wire", ["valkey", "rabbitmq"], indirect=True)


def _name(order: tuple[str, Mode, Mode, str, int]) -> str:
    subject, mode, again, wire, _ = order
    return f"{subject}-{mode.name}-{again.name}-{wire}".lower()


@pytest.mark.parametrize(
    ("subject", "mode", "again", "wire", "one_in"), ORDERS, indirect=["wire"], ids=map(_name, ORDERS)
)
def test_a_child_killed_at_any_call_and_its_heir_at_any_call(
    armed_system: System,
    armoury: Armoury,
    subject: str,
    mode: Mode,
    again: Mode,
    one_in: int,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = Family(armed_system, armoury.block, SUBJECTS[subject])
    house.warm_up()
    done = every_pair(house, mode, again, one_in=one_in, seed=seed)
    _end(house, f"{subject} child, {mode.name}, {again.name}, one in {one_in}", done, capsys, seed=seed)


@both_brokers
@pytest.mark.parametrize("target", ["worker", "relay"])
def test_pairs_drawn_by_the_seed_of_a_main_process_and_the_one_started_in_its_place(
    armed_system: System, armoury: Armoury, target: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target=target)
    calls = len(house.warm_up().labels), RECOVERY_CALLS[target]
    done = drawn_pairs(house, DRAWN, calls, random.Random(seed))
    assert done.pairs > DRAWN // 4
    _end(house, f"charge {target}, drawn", done, capsys, seed=seed)


def _end(house: House, what: str, done: Pairs, capsys: pytest.CaptureFixture[str], *, seed: int) -> None:
    assert done.pairs
    house.system.oracle.check()
    broker = house.system.wire.name
    record("crash pairs", what, broker=broker, seed=seed, pairs=done.pairs, kills=house.kills, intents=house.intents)
    tell(capsys, f"{what}, {broker}", done)
