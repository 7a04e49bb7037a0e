"""Plays seeds, counts what they met, and tells of a broken promise all that is needed to play it again.

python -m tests.simulation --seeds 1000000 --jobs 2    many seeds from --first on; the regressions first
python -m tests.simulation --replay 4711               one seed, and everything that happens in it
python -m tests.simulation --guards                    each guard taken out, until a seed finds it
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from tests.simulation import nemesis as n
from tests.simulation.guards import BY_NAME, GUARDS, play, standing_in

REGRESSIONS = Path(__file__).with_name("regressions.txt")
BLOCK = 2_000
GUARD_SEEDS_MAX = 12_000
KNOWN_SEEDS_MAX = 700
ENOUGH_SEEDS = 20_000  # from here on each kind of fault must have fired and each branch must have been taken
MANY_SEEDS = 100_000  # and from here on the rare ones too

SOMETIMES = (
    *n.KINDS, n.ROLLED, n.REPLAYED, n.RESOLVED, n.LOOKED, "look-up", "answered from the key's memory",
    "held back for its charge", "woken by its charge", "lost lease found by a claim", "lost lease found by a relay",
    "record refused", "late answer stays a fact", "late answer moves it forward", "nudged by a webhook",
    "parked: blind_unknown", "parked: key_expired", "parked: no_answer", "parked: absent", "parked: attempt_budget",
    "settlement lost", "replayed", "resolved as succeeded", "resolved as failed", "a person's wish is refused",
    "settled by a look: Succeeded", "settled by a look: Failed", "learned Succeeded", "learned Failed",
    "learned Awaiting", "learned Deferred", "learned Unknown", "learned Absent",
    "refused: another request under the same key", "accepted before: the same effect",
    "claim refused: quarantine", "forgotten by the database", "repeated after the restore", "doubted by the recovery",
    "pointed to its object", "orphan found", "orphan adopted", "break: orphan_at_provider", "recovered and released",
)  # fmt: skip
"""What a batch must have met, or its silence says nothing."""
RARELY = (
    "intent adopted from a look", "parked: age_limit", "resolved as pending", "settled by a look: Awaiting",
    "settlement of a forgotten effect", "webhook about a forgotten effect", "record refused: a life that is over",
)  # fmt: skip
"""What a large batch must have met."""


@dataclass(slots=True)
class Batch:
    """What became of a run of seeds."""

    seeds: int = 0
    events: int = 0
    days: float = 0.0
    struck: int = 0
    cpu: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Batch) -> None:
        self.seeds += other.seeds
        self.events += other.events
        self.days += other.days
        self.struck += other.struck
        self.cpu += other.cpu
        self.hits.update(other.hits)
        self.broken += other.broken

    def missing(self) -> list[str]:
        """Kinds of fault and branches that this batch has never met; it may be too small to ask."""
        asked = SOMETIMES if self.seeds >= ENOUGH_SEEDS else ()
        asked += RARELY if self.seeds >= MANY_SEEDS else ()
        return [name for name in asked if not self.hits[name]]


def block(begin: int, seeds: int, off: str = "", *, first: bool = False) -> Batch:
    """Seeds one after another; with `first` only until one of them breaks something."""
    done, began, hits = Batch(), process_time(), defaultdict(int)
    # A world is a tangle of cycles, collected now and then; all that was there before is no part of it.
    gc.disable()
    gc.freeze()
    try:
        with standing_in(BY_NAME.get(off)):
            for seed in range(begin, begin + seeds):
                world, wrong = play(seed, off=off, hits=hits)
                done.seeds += 1
                done.events += world.hub.events
                done.days += world.hub.now / n.DAY
                done.struck += bool(world.nemesis.shots)
                if wrong:
                    done.broken.append((seed, wrong))
                    if first:
                        break
                world.close()
                if seed % 1000 == 999:
                    gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
    done.hits.update(hits)
    done.cpu = process_time() - began
    return done


def traced(seed: int, off: str = "") -> str:
    """Everything that happened in a seed, which of its faults it takes, and how to see it again."""
    with standing_in(BY_NAME.get(off)):
        needed = shrunk(seed, off)
        world, wrong = play(seed, off=off, tracing=True)
    lines = world.database.trace or []
    if len(lines) > 200:
        lines = [*lines[:120], f"… {len(lines) - 200} more …", *lines[-80:]]
    again = f"python -m tests.simulation --replay {seed}" + (f" --guard {off}" if off else "")
    told = {**world.options, "workers": len(world.workers), "keyed mail": world.keyed, "webhooks": world.hooks}
    takes = [f"it takes: {', '.join(needed) or 'no fault'}"] if wrong else []
    return "\n".join([f"seed {seed}: {wrong or 'holds'}", f"options {told}", *takes, *lines, f"again: {again}"])


def shrunk(seed: int, off: str = "") -> list[str]:
    """The faults without which the same promise would not break: each is left out in turn, and stays out if it can."""
    world, wrong = play(seed, off=off)
    left_out: frozenset[int] = frozenset()
    for shot in range(1, len(world.nemesis.shots) + 1) if wrong else ():
        _, still = play(seed, off=off, without=left_out | {shot})
        if still and still.split()[0] == wrong.split()[0]:  # type: ignore[union-attr] - mypy does not see the loop's guard
            left_out |= {shot}
    world, _ = play(seed, off=off, without=left_out)
    return [kind for number, kind in enumerate(world.nemesis.shots, 1) if number not in left_out]


def regressions() -> list[int]:
    """Seeds that have broken something once."""
    words = (line.partition("#")[0].strip() for line in REGRESSIONS.read_text().splitlines())
    return [int(word) for word in words if word]


def many(begin: int, seeds: int, jobs: int, *, progress: bool) -> Batch:
    """The regressions, then the seeds, on several processes."""
    total, began = Batch(), monotonic()
    for seed in regressions():
        total.add(block(seed, 1))
    blocks = [(at, min(BLOCK, begin + seeds - at)) for at in range(begin, begin + seeds, BLOCK)]
    if jobs == 1 or len(blocks) == 1:
        for at, size in blocks:
            total.add(block(at, size))
        return total
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in pool.map(block, *zip(*blocks, strict=True)):
            total.add(done)
            if progress and total.seeds % 50_000 < BLOCK:
                print(f"{total.seeds:>10,} seeds, {monotonic() - began:6.0f} s", file=sys.stderr, flush=True)
    return total


def guard(name: str, *, known: bool = False) -> dict[str, Any]:
    """Take one guard out; what the first seed that notices says. `known`: look where it was found before."""
    begin = BY_NAME[name].begin if known else 0
    found = block(begin, KNOWN_SEEDS_MAX if known else GUARD_SEEDS_MAX, name, first=True)
    seed, wrong = found.broken[0] if found.broken else (None, "")
    return {"guard": name, "seed": seed, "seeds": found.seeds, "broken": wrong, "seconds": round(found.cpu, 2)}


def told(batch: Batch) -> str:
    """The batch for a person."""
    rate = batch.seeds / batch.cpu if batch.cpu else 0.0
    seen = f"{batch.seeds:,} seeds, {batch.events:,} events, {batch.days / 365.25:,.0f} simulated years"
    mean = f"{batch.events / max(1, batch.seeds):.1f} events a seed, faults in {batch.struck / max(1, batch.seeds):.1%}"
    lines = [f"{seen}, {rate:,.0f} seeds a second of CPU, {len(batch.broken)} broken", mean]
    lines += [f"{count:>10,}  {name}" for name, count in sorted(batch.hits.items())]
    lines += [f"never met: {name}" for name in batch.missing()]
    lines += [f"for regressions.txt: {seed}  # {wrong}" for seed, wrong in batch.broken[:20]]
    return "\n".join(lines)


def main(given: list[str] | None = None) -> int:
    """The command; 1 when a promise is broken, a guard guards nothing, or a branch was never met."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", dest="begin", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--replay", type=int, metavar="SEED", help="one seed, and everything that happens in it")
    parser.add_argument("--guard", choices=sorted(BY_NAME), default="")
    parser.add_argument("--guards", action="store_true")
    parser.add_argument("--known", action="store_true", help="look for each guard where it was found before")
    parser.add_argument("--json", action="store_true", help="one document for a program")
    asked = parser.parse_args(given)
    if asked.replay is not None:
        shown = traced(asked.replay, asked.guard)
        print(shown)
        return int(not shown.startswith(f"seed {asked.replay}: holds"))
    if asked.guard or asked.guards:
        rows = [guard(one.name, known=asked.known) for one in GUARDS if asked.guards or one.name == asked.guard]
        print(
            json.dumps(rows)
            if asked.json
            else "\n".join(f"{r['guard']:24} {r['seed']!s:>6}  {r['broken']}" for r in rows)
        )
        return int(any(row["seed"] is None for row in rows))
    batch = many(asked.begin, asked.seeds, asked.jobs, progress=not asked.json)
    if asked.json:
        document = {"seeds": batch.seeds, "events": batch.events, "cpu": batch.cpu, "hits": batch.hits}
        document["struck"] = batch.struck
        print(json.dumps({**document, "days": batch.days, "broken": batch.broken, "missing": batch.missing()}))
    else:
        print(told(batch))
        if batch.broken:
            print(traced(batch.broken[0][0]))
    return int(bool(batch.broken or batch.missing()))
