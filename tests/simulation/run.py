"""Plays seeds, counts what they met, and tells of a broken promise all that is needed to play it again.

python -m tests.simulation --seeds 100000 --from 0     many seeds, on --jobs processes; the regressions first
python -m tests.simulation --from 4711 --trace         one seed, and everything that happens in it
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
from tests.simulation.database import Broken
from tests.simulation.guards import BY_NAME, GUARDS, standing_in
from tests.simulation.nemesis import Hits
from tests.simulation.world import World

REGRESSIONS = Path(__file__).with_name("regressions.txt")
BLOCK = 2_000
GUARD_SEEDS_MAX = 6_000
KNOWN_SEEDS_MAX = 700
ENOUGH_SEEDS = 15_000  # from here on each branch must have been taken
TIMES = 3

SOMETIMES = (
    *n.KINDS, n.ROLLED, n.REPLAYED, n.RESOLVED, n.LOOKED, "look-up", "answered from the key's memory", "held back for its charge", "woken by its charge",
    "lost lease found by a claim", "lost lease found by a relay", "record refused", "late answer stays a fact",
    "late answer moves it forward", "nudged by a webhook", "parked: blind_unknown", "parked: key_expired",
    "parked: no_answer", "parked: absent", "parked: attempt_budget", "settlement lost", "replayed",
    "resolved as succeeded", "resolved as failed", "a person's wish is refused",
    "settled by a look: Succeeded", "learned Succeeded", "learned Failed", "learned Awaiting", "learned Deferred",
    "learned Unknown", "learned Absent",
)  # fmt: skip
"""What a batch must have met, or its silence says nothing."""


@dataclass(slots=True)
class Batch:
    """What became of a run of seeds."""

    seeds: int = 0
    events: int = 0
    days: float = 0.0
    cpu: float = 0.0
    hits: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Batch) -> None:
        self.seeds += other.seeds
        self.events += other.events
        self.days += other.days
        self.cpu += other.cpu
        self.hits.update(other.hits)
        self.broken += other.broken

    def missing(self) -> list[str]:
        """Kinds of fault and branches that this batch has hardly met; it may be too small to ask."""
        return [name for name in SOMETIMES if self.hits[name] < TIMES] if self.seeds >= ENOUGH_SEEDS else []


def play(seed: int, *, off: str = "", tracing: bool = False, hits: Hits | None = None) -> tuple[World, str | None]:
    """One seed; with it the promise it breaks, counted in `hits`. Call it `standing_in`."""
    world = World(seed, off=off, tracing=tracing, hits=hits)
    try:
        world.run()
    except Broken as broken:
        return world, str(broken)
    except Exception as error:  # noqa: BLE001 - a bug in the product is a find like any other
        return world, f"{type(error).__name__}: {error}"
    return world, None


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
    """Everything that happened in a seed, and how to see it again."""
    with standing_in(BY_NAME.get(off)):
        world, wrong = play(seed, off=off, tracing=True)
    lines = world.database.trace or []
    if len(lines) > 200:
        lines = [*lines[:120], f"… {len(lines) - 200} more …", *lines[-80:]]
    again = f"python -m tests.simulation --from {seed} --trace" + (f" --guard {off}" if off else "")
    told = {**world.options, "workers": len(world.workers), "keyed mail": world.keyed, "webhooks": world.hooks}
    return "\n".join([f"seed {seed}: {wrong or 'holds'}", f"options {told}", *lines, f"again: {again}"])


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
    lines = [f"{seen}, {rate:,.0f} seeds a second of CPU, {len(batch.broken)} broken"]
    lines += [f"{count:>10,}  {name}" for name, count in sorted(batch.hits.items())]
    lines += [f"never or hardly met: {name}" for name in batch.missing()]
    lines += [f"seed {seed}: {wrong}" for seed, wrong in batch.broken[:20]]
    return "\n".join(lines)


def main(given: list[str] | None = None) -> int:
    """The command; 1 when a promise is broken, a guard guards nothing, or a branch was never met."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--from", dest="begin", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--guard", choices=sorted(BY_NAME), default="")
    parser.add_argument("--guards", action="store_true")
    parser.add_argument("--known", action="store_true", help="look for each guard where it was found before")
    parser.add_argument("--json", action="store_true", help="one document for a program")
    asked = parser.parse_args(given)
    if asked.trace:
        print(traced(asked.begin, asked.guard))
        return 0
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
        print(json.dumps({**document, "days": batch.days, "broken": batch.broken, "missing": batch.missing()}))
    else:
        print(told(batch))
        if batch.broken:
            print(traced(batch.broken[0][0]))
    return int(bool(batch.broken or batch.missing()))
