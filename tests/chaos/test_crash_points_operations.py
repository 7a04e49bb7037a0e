"""A relay is killed right before and after each of its calls while it drives an operation; another one takes it over.

However it is killed, the operation ends by itself, exactly the frozen set is replayed (or parked) once, with one fact in
the journal of each, what was settled, changed, at work or not asked for is left as it stands, the operation's counts are
those of its items, and the provider's ledger has each payment once (I1, I2, I7, I8, I10). Repeat one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow tests/chaos/test_crash_points_operations.py -k 'canary'
"""

from __future__ import annotations

import os
import random

import pytest

from service.core.operation import Verb
from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.driving import Driving
from tests.chaos.points.enumeration import BEYOND, ONE_POINT, Tally, judge, tell
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.flow.system import System

__all__ = ["armed_system", "armoury"]
BEFORE, AFTER = Mode.BEFORE, Mode.AFTER
# From one side each on a broker: after a call comes what is before the next.
CASES = [
    (Verb.REPLAY, 0, BEFORE, "valkey"),
    (Verb.REPLAY, 0, AFTER, "rabbitmq"),
    (Verb.REPLAY, 1, AFTER, "valkey"),
    (Verb.REPLAY, 1, BEFORE, "rabbitmq"),
    (Verb.PARK, 0, AFTER, "valkey"),
    (Verb.PARK, 0, BEFORE, "rabbitmq"),
]
PARTS = 3  # a run takes every third point, its seed says which: three seeds in a row are whole
DRAWN = 2
# The relay's first round after the start: asking, holding, doing and committing are among these.
FIRST_CALLS = 24


def _name(verb: Verb, canary: int, mode: Mode, wire: str) -> str:
    return f"{verb}{'_with_canary' * bool(canary)}-{mode.name}-{wire}".lower()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("verb", "canary", "mode", "wire"), CASES, indirect=["wire"], ids=[_name(*case) for case in CASES]
)
def test_a_relay_killed_at_any_call_while_it_drives_an_operation(
    armed_system: System,
    armoury: Armoury,
    verb: Verb,
    canary: int,
    mode: Mode,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    house = Driving(armed_system, armoury.block, verb, canary=canary)
    house.warm_up()
    part = seed % PARTS
    tally = _points(house, mode, part)
    house.everything_ends()
    armed_system.oracle.check()
    broker, subject = armed_system.wire.name, f"{verb}{', canary' * bool(canary)}"
    what = f"relay driving, {subject}, {mode.name.lower()}, part {part + 1} of {PARTS}"
    branches = {f"branch_{name.replace(' ', '_')}": number for name, number in house.found.items()}
    counts = {"points": tally.points, "kills": house.kills, "intents": house.intents}
    record("crash points", what, broker=broker, seed=seed, **counts, **branches)
    tell(capsys, f"{what}, {broker}", f"{tally}\n    {dict(house.found)}")
    met = {"killed with nothing done", "killed with all of it done", "killed after its end"}
    met |= {"killed with the canary done"} if canary else set()
    assert met <= house.found.keys() or ONE_POINT in os.environ, f"never met: {met - house.found.keys()}"


def _points(house: Driving, mode: Mode, part: int) -> Tally:
    """Every number of this part until none is hit any more: all parts together are every point."""
    tally, n, beyond = Tally(mode), part + 1, 0
    if one := os.environ.get(ONE_POINT):
        tally.add(judge(house, int(one), mode, house.hit))
        return tally
    while beyond < BEYOND:
        run = judge(house, n, mode, house.hit)
        tally.add(run)
        n, beyond = n + PARTS, 0 if run.fired else beyond + 1
    return tally


def test_a_relay_killed_at_calls_drawn_by_the_seed_while_it_replays(
    armed_system: System, armoury: Armoury, seed: int
) -> None:
    """The short profile of what stands above: of a relay that has driven nothing yet."""
    house = Driving(armed_system, armoury.block, Verb.REPLAY)
    draw = random.Random(seed)
    for n in draw.sample(range(1, FIRST_CALLS), DRAWN):
        assert judge(house, n, draw.choice([BEFORE, AFTER]), house.hit).fired
    house.everything_ends()
    armed_system.oracle.check()
    record("crash points", "relay driving, drawn", seed=seed, points=DRAWN, kills=house.kills, intents=house.intents)


def test_an_operation_that_does_not_ask_what_has_changed_takes_an_effect_from_the_attempt_at_work(
    armed_system: System, armoury: Armoury
) -> None:
    """The proof can fail: the driving relay looks neither at the state nor at the attempt that the plan has seen."""
    house = Driving(armed_system, armoury.block, Verb.REPLAY, control="replay_what_changed")
    with pytest.raises(AssertionError, match=r"done=5, skipped=\{'settled: failed': 1\}"):
        house.hit(1, BEFORE)
