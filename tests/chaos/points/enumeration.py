"""Every point, one after the other, until a number is not reached any more; the oracle after each.

`Tally` says what was covered. A label of an undisturbed run that no kill has hit is chased until one has.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import pytest

from tests.chaos.points.block import NEVER, Mode
from tests.chaos.points.house import House, Run

ONE_POINT = "COUNTERFOIL_TEST_POINT"
# An answer comes in one piece or in two, so a run may be a call shorter than the one before it.
BEYOND = 2
CHASES_MAX = 30
Hit = Callable[[int, Mode], Run]


@dataclass
class Tally:
    """What an enumeration has done."""

    mode: Mode
    points: int = 0
    covered: set[str] = field(default_factory=set)
    required: tuple[str, ...] = ()
    held: list[str] = field(default_factory=list)
    begun: float = field(default_factory=monotonic)

    def add(self, run: Run) -> None:
        if run.fired:
            self.points += 1
            self.covered.add(run.label)
            self.held += [run.label] * run.waited_for_zombie

    @property
    def missing(self) -> list[str]:
        return [label for label in dict.fromkeys(self.required) if label not in self.covered]

    def __str__(self) -> str:
        seconds = monotonic() - self.begun
        waited = f", {len(self.held)} only after the zombie went on" if self.held else ""
        lines = [f"{self.points} points {self.mode.name} in {seconds:.0f} s, {len(self.covered)} labels{waited}"]
        return "\n    ".join(lines + sorted(self.covered))


def every_point(house: House, mode: Mode, hit: Hit) -> Tally:
    """Hit 1, 2, 3, … until nothing is hit, or the one that COUNTERFOIL_TEST_POINT names. Raises at a broken promise."""
    tally = Tally(mode)
    if ONE_POINT not in os.environ:
        tally.required = _undisturbed(house, hit, mode)
    for n in _numbers(tally):
        tally.add(judge(house, n, mode, hit))
    for label in tally.missing:
        _chase(house, label, mode, hit, tally)
    assert not tally.missing, f"never hit: {tally.missing}"
    return tally


def _undisturbed(house: House, hit: Hit, mode: Mode) -> tuple[str, ...]:
    """The labels of two runs without a kill, in processes as warm as those that follow a kill.

    Of two, because a second connection or a look at the clock comes in one run and not in the next.
    """
    traces = []
    for _ in range(2):
        house.renew()
        run = hit(NEVER, Mode.BEFORE)
        beyond = run.under_way if mode in (Mode.AFTER, Mode.STOP_AFTER) else ()
        traces.append([label for label in run.labels if label not in beyond])
    first, second = traces
    return tuple(label for label in first if label in second)


def _numbers(tally: Tally) -> Iterator[int]:
    if one := os.environ.get(ONE_POINT):
        yield int(one)
        return
    n = beyond = 0
    while beyond < BEYOND:
        n, before = n + 1, tally.points
        yield n
        beyond = 0 if tally.points > before else beyond + 1


def judge(house: House, n: int, mode: Mode, hit: Hit) -> Run:
    """One point and the oracle's word on its effect. Raises with the way to repeat it."""
    run = hit(n, mode)
    wrong = house.glance.violations(run.effect_id)
    where = run.label if run.fired else "nowhere"
    assert not wrong, "\n".join([f"{mode.name} call {n} ({where}); repeat with {ONE_POINT}={n}", *wrong])
    return run


def _chase(house: House, label: str, mode: Mode, hit: Hit, tally: Tally) -> None:
    """Calls move by one or two between runs, so a label may have been passed by: follow it.

    Where it comes last: what comes first may be left from before (an acknowledgement of what was delivered again).
    To its place of last time or to the same number again, as is drawn: siblings take turns, and whoever always goes
    where it was last is always a turn late.
    """
    draw, n = random.Random(label), _last(tally.required, label)
    for _ in range(CHASES_MAX):
        if label in tally.covered:
            return
        # As warm as the undisturbed run: one that has lived for longer makes fewer calls, and others (prepared ones).
        house.renew()
        run = judge(house, n, mode, hit)
        tally.add(run)
        if label not in run.labels or (run.fired and run.labels.count(label) < tally.required.count(label)):
            n += 1  # what was heard of it was not yet the last of it
        else:
            at = _last(run.labels, label)
            n = draw.choice((at, n)) if run.fired else at


def _last(labels: Sequence[str], label: str) -> int:
    return len(labels) - labels[::-1].index(label)


def tell(capsys: pytest.CaptureFixture[str], what: str, tally: object) -> None:
    """A line for who watches the run."""
    with capsys.disabled():
        print(f"\n  {what}: {tally}")
