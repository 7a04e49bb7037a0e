"""One round: faults, then everything is mended, then what is open comes to its end, then the verdict.

The time in which all must be settled counts from the mending: while things are broken, nobody promises when.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.chaos.soak.evidence import forget_the_rest, keep_everything, keep_verdict
from tests.chaos.soak.installation import Ground, Installation, installed
from tests.chaos.soak.nemesis import GAP_SECONDS, Nemesis
from tests.chaos.soak.verdict import Verdict, judge
from tests.flow.waiting import age, until

TEND_SECONDS = 0.05
BANK_SECONDS = 2.0
CALM_SECONDS = 150.0
"""Longer than the longest lease, backoff and redelivery of a round one after the other, on a machine that is busy."""
_OPEN = "select id, kind, state, attempt, not_before from effects where state not in ('succeeded', 'failed')"


@dataclass
class Round:
    """What a round did and what it proved."""

    seed: int
    broker: str
    seconds: float
    drained_after: float
    struck: Counter[str]
    restarts: Counter[str]
    kills: int
    verdict: Verdict


def play(ground: Ground, broker: str, seed: int, seconds: float, folder: Path) -> Round:
    """Raises AssertionError naming the evidence if the round is red."""
    begun = monotonic()
    with installed(ground, broker, seed, folder) as house:
        nemesis = Nemesis(house, random.Random(f"{seed} nemesis"))
        try:
            _fault(house, nemesis, random.Random(f"{seed} gaps"), seconds)
        finally:
            nemesis.heal()
        healed = monotonic()
        _drain(house)
        drained = monotonic() - healed
        verdict = judge(house, seed)
        _object(house, verdict.wrong)
    done = Round(seed, broker, monotonic() - begun, drained, nemesis.struck, house.restarts, nemesis.kills, verdict)
    keep_verdict(
        folder, verdict, seed=seed, broker=broker, struck=nemesis.struck, restarts=house.restarts, drained=drained
    )
    forget_the_rest(folder)
    return done


def _fault(house: Installation, nemesis: Nemesis, choose: random.Random, seconds: float) -> None:
    over, banking = age(seconds), age(BANK_SECONDS)
    while not over():
        nemesis.strike()
        due = age(choose.uniform(*GAP_SECONDS))
        while not (due() or over()):
            nemesis.undo_what_is_over()
            house.tend()
            if banking():
                house.the_bank_pays()
                banking = age(BANK_SECONDS)
            until(age(TEND_SECONDS), "the supervisor looks again")


def _drain(house: Installation) -> None:
    """Clients get their answers, then every effect comes to its end; the supervisor goes on all the while."""
    house.no_more_wishes()
    over, banking = age(CALM_SECONDS), age(0)
    while True:
        house.tend()
        if banking():
            house.the_bank_pays()
            if house.clients_are_done():
                house.look_after_what_waits()
            banking = age(BANK_SECONDS)
        open_ones = house.system.sql(_OPEN) if house.clients_are_done() else [{"client": "still asking"}]
        if not open_ones:
            return
        if over():
            _object(house, [f"I2 stuck {CALM_SECONDS:g} s after the last fault: {row}" for row in open_ones[:50]])
        until(age(TEND_SECONDS), "the supervisor looks again")


def _object(house: Installation, wrong: list[str]) -> None:
    if wrong:
        where = keep_everything(house, wrong)
        raise AssertionError("\n".join([f"evidence in {where}", *wrong[:40]]))
