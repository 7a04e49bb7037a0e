"""A process is stopped at each of its socket and pipe calls, another takes over, and the zombie wakes: it changes nothing.

SIGSTOP right before and right after the N-th call, N = 1, 2, 3 … until none is left; every label of an undisturbed run
must have been hit. A fence is what holds here and nowhere else; that a zombie is seen without it is shown where the heir
is held at the provider (tests/flow/test_negative_controls.py: here an heir is often done before it is caught midway).
What a zombie may still do stands in points/pauses.py. Repeat one point of one test:

    COUNTERFOIL_TEST_POINT=7 python -m pytest -m slow tests/chaos/test_pause_points.py -k 'charge and midway and valkey'
"""

from __future__ import annotations

import random

import pytest

from tests.chaos.book import record
from tests.chaos.points.block import Mode
from tests.chaos.points.enumeration import Tally, every_point, judge
from tests.chaos.points.fixtures import Armoury, armed_system, armoury
from tests.chaos.points.pauses import LONG_PATIENCE_SECONDS, ZOMBIES, Pause, Zombies
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers

__all__ = ["armed_system", "armoury"]
pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow
SHORTLY = 3
PAUSES = [Mode.STOP_BEFORE, Mode.STOP_AFTER]
# From both sides where the money is and where the last byte counts; a process stopped after one call stands before the
# next, so one side shows nearly the same.
_SUBJECTS = [
    *((subject, mode) for subject in ("charge", "blind_once") for mode in PAUSES),
    ("refund", Mode.STOP_AFTER),
    ("keyed", Mode.STOP_BEFORE),
]
# A charge on both brokers, woken early and late; of the others one half each, since brokers and wakings are then known.
CASES = [
    pytest.param(
        subject, mode, midway, wire, id=f"{wire}-{'midway' if midway else 'done'}-{subject}-{mode.name.lower()}"
    )
    for subject, mode in _SUBJECTS
    for wire in ("valkey", "rabbitmq")
    for midway in (False, True)
    if (subject, mode) == ("charge", Mode.STOP_AFTER) or (wire == "valkey") == (midway == (mode is Mode.STOP_BEFORE))
]
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
@pytest.mark.parametrize(("subject", "mode", "midway", "wire"), CASES, indirect=["wire"])
def test_a_worker_that_stands_still_at_any_call_and_wakes_past_its_lease_changes_nothing(
    armed_system: System, armoury: Armoury, subject: str, mode: Mode, midway: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Zombies(armed_system, armoury.block, ZOMBIES[subject], Pause(midway=midway))
    house.warm_up()
    tally = every_point(house, mode, house.stopped)
    _kept(capsys, house, tally, f"{subject}, worker stopped, woken when its heir is {'midway' if midway else 'done'}")
    assert house.found["late_answer"], "no zombie has come back with an answer"


@slow
@on_both_brokers
@wakes
@pytest.mark.parametrize("mode", [Mode.STOP_AFTER], ids=["stop_after"])
def test_a_relay_that_stands_still_at_any_call_beside_another_publishes_nothing_twice_that_counts(
    armed_system: System, armoury: Armoury, mode: Mode, midway: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two relays: one stops with what it has taken, the other one takes it again when it comes due."""
    house = Zombies(armed_system, armoury.block, ZOMBIES["charge"], Pause("relay", midway=midway))
    house.warm_up()
    tally = every_point(house, mode, house.stopped)
    _kept(capsys, house, tally, f"charge, relay stopped, woken when its heir is {'midway' if midway else 'done'}")


@slow
@pytest.mark.parametrize(
    ("subject", "mode"), [("charge", Mode.STOP_AFTER), ("blind_again", Mode.STOP_BEFORE)], ids=["charge", "blind_again"]
)
def test_a_worker_that_stands_still_until_its_lease_has_run_out_by_the_clock_changes_nothing(
    armed_system: System, armoury: Armoury, subject: str, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    """No moment is moved back: a true pause, after which the zombie's own clock tells it how late it is."""
    house = Zombies(armed_system, armoury.block, ZOMBIES[subject], Pause(by_the_clock=True))
    house.warm_up()
    tally = every_point(house, mode, house.stopped)
    _kept(capsys, house, tally, f"{subject}, worker stopped for longer than its lease")


@slow
def test_a_worker_that_stands_still_within_its_settling_transaction_keeps_nobody_out(
    armed_system: System, armoury: Armoury, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found here: with follow-ups a settlement is a transaction, and stopped within it a worker held its effect's row
    for as long as it stood there, whatever its lease. Postgres ends such a transaction now.
    """
    house = Zombies(armed_system, armoury.block, ZOMBIES["receipted"])
    house.patience_seconds = LONG_PATIENCE_SECONDS
    calls = house.warm_up().labels
    settling = max(n for n, label in enumerate(calls, 1) if label.startswith("send") and "BEGIN" in label)
    tally = Tally(Mode.STOP_AFTER)
    # BEGIN and its answer, the settlement and its answer: now the row is locked.
    tally.add(judge(house, settling + 3, Mode.STOP_AFTER, house.stopped))
    assert tally.points == house.stops == 1
    assert not tally.held, f"only the zombie's waking let its heir go on, after {tally.held}"
    _kept(capsys, house, tally, "a charge with a receipt, worker stopped within its settlement")


def test_a_worker_that_stands_still_at_calls_drawn_by_the_seed_changes_nothing(
    armed_system: System, armoury: Armoury, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short profile of what stands above."""
    draw = random.Random(seed)
    house = Zombies(armed_system, armoury.block, ZOMBIES["charge"], Pause(midway=draw.random() < 0.5))
    calls = len(house.warm_up().labels)
    tally = Tally(Mode.STOP_AFTER)
    for n in draw.sample(range(2, calls), SHORTLY):
        tally.add(judge(house, n, draw.choice(PAUSES), house.stopped))
    _kept(capsys, house, tally, f"charge, worker stopped, seed {seed}")
    assert house.stops


# --- the proof can fail -----------------------------------------------------------------------------------------------


@slow
@modes
def test_with_a_random_key_a_pause_finds_a_second_refund(armed_system: System, armoury: Armoury, mode: Mode) -> None:
    """Right before the request. A charge is also held by its PaymentIntent, whatever the key; a refund has the key alone."""
    house = Zombies(armed_system, armoury.block, ZOMBIES["refund"], control="random_key")
    assert _found(house, "send stripe", mode, "I1")


def _found(house: Zombies, call: str, mode: Mode, *invariants: str) -> bool:
    """Whether the oracle objects, in the name of one of these invariants, to a pause near the last such call."""
    calls = house.warm_up().labels
    at = max(n for n, label in enumerate(calls, 1) if label.startswith(call))
    for n in (at, at - 1, at + 1, at + 2):
        try:
            house.stopped(n, mode)
        except AssertionError as objection:  # the house looks at the zombie's effect itself, the moment it is quiet
            return str(objection).startswith(invariants)
        if any(sentence.startswith(invariants) for sentence in house.system.oracle.violations()):
            return True
    return False
