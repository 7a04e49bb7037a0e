"""The doors are killed right before and after each of their socket calls: the API under a client, and the replay tool.

A client that has no answer repeats its key until it has one, and nothing is made twice or lost (I1, I2, I4, I7); a replay
that was killed has said in the journal what it did, or nothing of it has happened, and is simply run again. Neither
door talks to the broker (asserted below), so one broker is enough here. Repeat one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow tests/chaos/test_crash_doors.py -k 'api and refund-after'
"""

from __future__ import annotations

import random
from typing import Literal

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.doors import Api, Door, door_armoury, door_system
from tests.chaos.points.enumeration import Tally, every_point, judge
from tests.chaos.points.fixtures import Armoury
from tests.chaos.points.replay_tool import Tool
from tests.flow.system import System

__all__ = ["door_armoury", "door_system"]
pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow
KILLS = [Mode.BEFORE, Mode.AFTER]
KINDS = ["charge", "refund"]
# Warm from both sides; cold, and waited for (Prefer: wait), from one: after a call comes what is before the next.
APIS = [
    *(pytest.param(kind, False, 0, mode, id=f"{kind}-{mode.name.lower()}") for kind in KINDS for mode in KILLS),
    pytest.param("charge", True, 0, Mode.AFTER, id="charge-cold-after"),
    pytest.param("charge", False, 10, Mode.BEFORE, id="charge-waited_for-before"),
]
PAIRS = 12
kills = pytest.mark.parametrize("mode", KILLS, ids=lambda mode: mode.name.lower())


def _kept(capsys: pytest.CaptureFixture[str], house: Door, tally: Tally, what: str) -> None:
    house.system.oracle.check()
    at_broker = [label for label in tally.covered if "broker" in label]
    assert not at_broker, f"a door talks to the broker: {at_broker}"
    branches = {f"branch_{name.replace(' ', '_').replace(',', '')}": number for name, number in house.found.items()}
    counts = {"points": tally.points, "kills": house.kills, "intents": house.intents}
    record("crash points", what, broker=house.system.wire.name, **counts, **branches)
    with capsys.disabled():
        print(f"\n  {what}: {tally}\n    {dict(house.found)}")


@slow
@pytest.mark.parametrize(("kind", "cold", "wait", "mode"), APIS)
def test_an_api_killed_at_any_call_of_an_accept_and_a_client_that_repeats_its_key(
    door_system: System,
    door_armoury: Armoury,
    kind: Literal["charge", "refund"],
    cold: bool,
    wait: int,
    mode: Mode,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = Api(door_system, door_armoury.block, kind, cold=cold, wait=wait)
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    house.once()
    _kept(
        capsys, house, tally, f"api, {kind}{', cold' * cold}{', waited for' * bool(wait)}, killed {mode.name.lower()}"
    )
    assert house.found["unknown to the client"]


@slow
@kills
def test_a_replay_killed_at_any_call_is_all_or_nothing_and_is_run_again(
    door_system: System, door_armoury: Armoury, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Tool(door_system, door_armoury.block)
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    _kept(capsys, house, tally, f"replay tool, killed {mode.name.lower()}")
    assert house.found["started, then killed"]
    assert house.found["killed, nothing done"]


@slow
def test_an_api_killed_and_the_one_that_gets_the_repetition_killed_as_well(
    door_system: System, door_armoury: Armoury, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pairs drawn by the seed: the second is cold, so it has three times the calls of the first."""
    draw = random.Random(seed)
    house = Api(door_system, door_armoury.block, "charge")
    calls = len(house.warm_up().labels)
    twice = 0
    for _ in range(PAIRS):
        again = draw.randint(1, 3 * calls), draw.choice(KILLS)
        run = house.killed(draw.randint(1, calls - 1), draw.choice(KILLS), again)
        twice += bool(run.fired and run.second)
        assert not (wrong := house.glance.violations(run.effect_id)), wrong
    house.once()
    house.system.oracle.check()
    record("crash pairs", "api", broker="valkey", seed=seed, pairs=twice, kills=house.kills, intents=house.intents)
    with capsys.disabled():
        print(f"\n  api, pairs, seed {seed}: {twice} of {PAIRS} were hit twice; {dict(house.found)}")
    assert twice >= PAIRS // 4


def test_doors_killed_at_calls_drawn_by_the_seed(door_system: System, door_armoury: Armoury, seed: int) -> None:
    """The short profile of what stands above: the API once before its statement and once after it."""
    house = Api(door_system, door_armoury.block, "charge")
    house.warm_up()
    draw = random.Random(seed)
    for n in (draw.randint(1, 2), draw.randint(3, 8)):
        run = judge(house, n, draw.choice(KILLS), house.hit)
        assert run.fired
    house.once()
    house.system.oracle.check()
    record("crash points", "api, shortly", broker="valkey", seed=seed, points=2, kills=house.kills, intents=4)
