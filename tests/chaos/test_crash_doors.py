"""The doors are killed right before and after each of their socket calls: the API under a client, and the replay tool.

A client that has no answer repeats its key until it has one, and nothing is made twice or lost (I1, I2, I4, I7); a replay
that was killed has said in the journal what it did, or nothing of it has happened, and is simply run again. Neither
door talks to the broker (asserted below), so one broker is enough here. Repeat one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow tests/chaos/test_crash_doors.py -k 'api and refund and after'
"""

from __future__ import annotations

from typing import Literal

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.doors import Api, Door, door_armoury, door_system
from tests.chaos.points.enumeration import Tally, every_point
from tests.chaos.points.fixtures import Armoury
from tests.chaos.points.replay_tool import Tool
from tests.flow.system import System

__all__ = ["door_armoury", "door_system"]
pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow
KILLS = [Mode.BEFORE, Mode.AFTER]
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
@kills
@pytest.mark.parametrize(
    ("kind", "cold", "wait"),
    [("charge", False, 0), ("charge", True, 0), ("charge", False, 10), ("refund", False, 0)],
    ids=["charge", "charge-cold", "charge-waited_for", "refund"],
)
def test_an_api_killed_at_any_call_of_an_accept_and_a_client_that_repeats_its_key(
    door_system: System,
    door_armoury: Armoury,
    mode: Mode,
    kind: Literal["charge", "refund"],
    cold: bool,
    wait: int,
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
    assert house.found["committed, then killed"]
    assert house.found["killed, nothing done"]
