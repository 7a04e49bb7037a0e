"""A worker's main process or a relay is killed right before and right after each of its calls; every charge happens once.

These speak the broker's protocol, so both brokers are enumerated from the first call to "did not come any more". The
main process is that of the solo pool, which also performs, and that of prefork, whose children die with it.
How to repeat one point: see test_crash_points.
"""

from __future__ import annotations

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import every_point, tell
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.house import House
from tests.chaos.points.subjects import SUBJECTS
from tests.flow.system import System

__all__ = ["armed_system", "armoury"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
kills = pytest.mark.parametrize("mode", [Mode.BEFORE, Mode.AFTER], ids=lambda mode: mode.name.lower())
both_brokers = pytest.mark.parametrize("wire", ["valkey", "rabbitmq"], indirect=True)


@both_brokers
@kills
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_worker_killed_at_any_call_of_its_main_process(
    armed_system: System, armoury: Armoury, pool: str, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="worker", pool=pool)
    _all_points(house, mode, f"charge main {pool}", capsys)


@both_brokers
@kills
def test_a_relay_killed_at_any_call_of_a_charge(
    armed_system: System, armoury: Armoury, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    house = House(armed_system, armoury.block, SUBJECTS["charge"], target="relay")
    _all_points(house, mode, "charge relay", capsys)


def _all_points(house: House, mode: Mode, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    house.warm_up()
    tally = every_point(house, mode, house.hit)
    house.system.oracle.check()
    broker, told = house.system.wire.name, f"{what}, {mode.name}"
    record("crash points", told, broker=broker, points=tally.points, kills=house.kills, intents=house.intents)
    tell(capsys, f"{told}, {broker}", tally)
