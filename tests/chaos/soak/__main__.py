"""`python -m tests.chaos.soak --hours 1 --seed 7`: rounds of faults on both brokers in turn, until the hours are over.

Progress is a line a round. Histories, verdicts and, of a red round, all evidence stay in the folder that is printed.
Exit code 0: every round green and no fault kind left out; 1: a round was red; 2: it was vacuous.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

os.environ.setdefault("COUNTERFOIL_STATE_DIR", ".counterfoil/soak")

from tests.chaos.book import record
from tests.chaos.soak.installation import ground
from tests.chaos.soak.nemesis import WEIGHTS
from tests.chaos.soak.round import Round, play

ROUND_SECONDS = 75.0
# What only recovery writes into the journal. A soak of half an hour that never saw one of these has proven little.
BRANCHES = ("leased_out", "unknown", "deferred", "late_answer", "replayed", "verified")
VACUOUS_BELOW_HOURS = 0.5
GREEN, RED, VACUOUS = 0, 1, 2


def main() -> int:
    wish = _wish()
    seed = wish.seed if wish.seed is not None else random.SystemRandom().randrange(2**32)
    folder = Path(wish.folder or f".counterfoil/soak/{seed}").resolve()
    names = ["valkey", "rabbitmq"] if wish.broker == "both" else [wish.broker]
    if "rabbitmq" in names and shutil.which("rabbitmq-server") is None:
        print("without RabbitMQ (apt-get install rabbitmq-server): every round on Valkey", flush=True)
        names = ["valkey"]
    print(f"seed {seed}; repeat with: python -m tests.chaos.soak --hours {wish.hours} --seed {seed}", flush=True)
    print(f"histories and evidence: {folder}", flush=True)
    begun, rounds = monotonic(), []
    with ground(folder, rabbit="rabbitmq" in names) as servers:
        while not rounds or monotonic() - begun < wish.hours * 3600:
            number = len(rounds)
            try:
                done = play(
                    servers,
                    names[number % len(names)],
                    seed + number,
                    wish.round_seconds,
                    folder / f"round-{number:03d}",
                )
            except AssertionError as error:
                print(f"RED: round {number}, seed {seed + number}\n{error}", flush=True)
                _tell(rounds, monotonic() - begun, seed)
                return RED
            rounds.append(done)
            _say(number, done, rounds, monotonic() - begun)
    missing = _tell(rounds, monotonic() - begun, seed)
    return VACUOUS if missing and wish.hours >= VACUOUS_BELOW_HOURS else GREEN


def _wish() -> argparse.Namespace:
    reads = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    reads.add_argument("--hours", type=float, default=1.0)
    reads.add_argument("--seed", type=int)
    reads.add_argument("--broker", choices=("both", "valkey", "rabbitmq"), default="both")
    reads.add_argument("--round-seconds", type=float, default=ROUND_SECONDS)
    reads.add_argument("--folder", help="default: .counterfoil/soak/SEED")
    return reads.parse_args()


def _say(number: int, done: Round, rounds: list[Round], seconds: float) -> None:
    intents, kills = sum(one.verdict.intents for one in rounds), sum(one.kills for one in rounds)
    print(
        f"{seconds / 60:5.1f} min  round {number} on {done.broker}: {done.verdict.intents} intents,"
        f" {done.struck.total()} faults, {done.verdict.unknown_answers} answers lost,"
        f" drained {done.drained_after:.1f} s after the last; in all {intents} intents, {kills} kills, 0 wrong",
        flush=True,
    )


def _tell(rounds: list[Round], seconds: float, seed: int) -> list[str]:
    """The sums, into the book as well; what was never struck or reached."""
    struck: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    for one in rounds:
        struck.update(one.struck)
        facts.update(one.verdict.facts)
        counts = {
            "intents": one.verdict.intents, "kills": one.kills, "violations": 0,
            **{f"fault_{name}": times for name, times in one.struck.items()},
            **{f"branch_{name}": one.verdict.facts[name] for name in BRANCHES},
        }  # fmt: skip
        record("soak", f"round of seed {one.seed}", broker=one.broker, seed=seed, **counts)
    intents = sum(one.verdict.intents for one in rounds)
    print(
        f"\n{len(rounds)} rounds in {seconds / 60:.1f} min, {intents} intents, {sum(one.kills for one in rounds)} kills"
    )
    print(f"faults: {dict(struck.most_common())}")
    print(f"recovery branches: { {name: facts[name] for name in BRANCHES} }")
    if intents:
        print(f"0 of {intents} doubled, lost or untrue: below {3 / intents:.1e} at 95 % confidence")
    missing = [name for name in WEIGHTS if not struck[name]] + [name for name in BRANCHES if not facts[name]]
    if missing:
        print(f"never seen: {', '.join(missing)}")
    return missing


if __name__ == "__main__":
    sys.exit(main())
