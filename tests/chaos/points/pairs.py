"""A kill in the attempt and a kill in its recovery: each pair of calls, or as many as a seed draws; the oracle after each.

What counts is a pair of which both kills came. A grid may be thinned: what one seed leaves out the next one takes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from time import monotonic

from tests.chaos.points.block import Mode
from tests.chaos.points.house import House, Run

ONE_PAIR = "COUNTERFOIL_TEST_PAIR"
# A run may be a call or two shorter than the one before it (an answer in one piece or in two).
BEYOND = 2
CALLS_MAX = 400


@dataclass
class Pairs:
    """What has been done."""

    modes: tuple[Mode, Mode]
    pairs: int = 0
    runs: int = 0
    places: set[tuple[str, str]] = field(default_factory=set)
    begun: float = field(default_factory=monotonic)

    def add(self, run: Run) -> None:
        self.runs += 1
        if run.second:
            self.pairs += 1
            self.places.add((run.label, run.second))

    def __str__(self) -> str:
        first, second = (mode.name for mode in self.modes)
        return (
            f"{self.pairs} pairs {first}, {second} at {len(self.places)} pairs of labels"
            f" in {self.runs} runs, {monotonic() - self.begun:.0f} s"
        )


def every_pair(house: House, mode: Mode, again: Mode, *, one_in: int = 1, seed: int = 0) -> Pairs:
    """All n, and for each n all m, until none comes; or the one that COUNTERFOIL_TEST_PAIR=N:M names.

    `one_in`: of each row only every so-manieth cell, a step further in the next row and with the next seed, so that
    each n and each m is hit in every run, and so many seeds in a row have hit each cell.
    """
    done = Pairs((mode, again))
    if one := os.environ.get(ONE_PAIR):
        n, m = map(int, one.split(":"))
        done.add(judge_pair(house, n, mode, m, again))
        return done
    beyond = n = 0
    while beyond < BEYOND:
        n += 1
        cells = count(1 + (n + seed) % one_in, one_in)
        beyond = 0 if _all_of(house, n, cells, done) else beyond + 1
        assert n < CALLS_MAX, "the attempt has no end"
    return done


def _all_of(house: House, n: int, cells: Iterator[int], done: Pairs) -> bool:
    """These m for one n; whether the first kill came at all."""
    beyond = 0
    came = False
    while beyond < BEYOND:
        m = next(cells)
        run = judge_pair(house, n, done.modes[0], m, done.modes[1])
        done.add(run)
        came = came or run.fired
        beyond = 0 if run.second else beyond + 1
        assert m < CALLS_MAX, "the recovery has no end"
    return came


def drawn_pairs(house: House, number: int, calls: tuple[int, int], draw: random.Random) -> Pairs:
    """So many pairs within the first `calls` of attempt and recovery, before and after mixed."""
    done = Pairs((Mode.BEFORE, Mode.AFTER))
    for _ in range(number):
        n, m = (draw.randint(1, most) for most in calls)
        done.add(judge_pair(house, n, draw.choice(done.modes), m, draw.choice(done.modes)))
    return done


def judge_pair(house: House, n: int, mode: Mode, m: int, again: Mode) -> Run:
    """One pair and the oracle's word on its effect. Raises with the way to repeat it."""
    run = house.pair(n, mode, m, again)
    wrong = house.glance.violations(run.effect_id)
    where = f"{run.label}, then {run.second or 'nowhere'}" if run.fired else "nowhere"
    told = f"{mode.name} call {n}, {again.name} call {m} ({where}); repeat with {ONE_PAIR}={n}:{m}"
    assert not wrong, "\n".join([told, *wrong])
    return run
