"""`counterfoil chaos run | report` (`python -m tests.chaos`): the whole suite with one seed, its book, and whether it did what it owes.

Some ways to call it:

    counterfoil chaos run                       # all of it, about an hour on two cores
    counterfoil chaos run --seed 7 tests/chaos/test_pause_points.py
    counterfoil chaos report --json

Exit codes: 0 green and all that is owed was done · 1 a test is red · 3 no such run · 4 green and short of what is owed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from tests.chaos.book import VARIABLE
from tests.chaos.report import document, read, short_of, table

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / ".counterfoil" / "chaos"
GREEN, RED, NO_RUN, SHORT = 0, 1, 3, 4
TEST_SECONDS = 1200
# What disturbs something. The other slow tests are `make slow`.
CHAOS = (
    "tests/chaos", "tests/simulation", "tests/guards/test_processes_without_their_guard.py", "tests/flow/test_pools.py",
    "tests/flow/test_refunds.py", "tests/store/test_operations_machine.py",
)  # fmt: skip
# The last part of a whole run: everything at once, on both brokers in turn.
SOAK_HOURS = 0.06


def main() -> int:
    wish = _wish()
    return _run(wish) if wish.verb == "run" else _report(wish)


def _wish() -> argparse.Namespace:
    reads = argparse.ArgumentParser(
        prog="counterfoil chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = reads.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="run the suite, then report")
    run.add_argument("--seed", type=int, help="default: a new one, printed with the command that repeats it")
    run.add_argument("--jobs", type=int, default=2, help="test processes side by side")
    run.add_argument("--short", action="store_true", help="only the profile that `make test` runs")
    run.add_argument("--soak-hours", type=float, default=SOAK_HOURS, help="length of the soak at the end; 0: none")
    run.add_argument("what", nargs="*", help="test files or folders; default: all that disturbs something")
    report = verbs.add_parser("report", help="what a run did")
    report.add_argument("run", nargs="?", help="its seed or folder; default: the last one")
    for verb in (run, report):
        verb.add_argument("--json", action="store_true", help="one object instead of a table")
    return reads.parse_args()


def _run(wish: argparse.Namespace) -> int:
    seed = wish.seed if wish.seed is not None else random.SystemRandom().randrange(2**32)
    folder = RUNS / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    book = folder / "book.jsonl"
    book.unlink(missing_ok=True)
    again = " ".join(["counterfoil chaos run --seed", str(seed), *(["--short"] if wish.short else []), *wish.what])
    print(f"seed {seed}; repeat with: {again}", file=sys.stderr, flush=True)
    begun = monotonic()
    environment = {**os.environ, VARIABLE: str(book), "COUNTERFOIL_TEST_SEED": str(seed)}
    code = subprocess.run(_pytest(wish, folder), cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode
    whole = not wish.what and not wish.short
    if whole and wish.soak_hours:
        soak = [sys.executable, "-m", "tests.chaos.soak", "--seed", str(seed), "--hours", str(wish.soak_hours)]
        words = [*soak, "--folder", str(folder / "soak")]
        code = subprocess.run(words, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode or code
    facts = {
        "seed": seed,
        "whole": whole,
        "tests_green": code == 0,
        "seconds": round(monotonic() - begun),
        "again": again,
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return _tell(folder, as_json=wish.json)


def _pytest(wish: argparse.Namespace, folder: Path) -> list[str]:
    chosen = wish.what or (["tests/chaos", "tests/simulation"] if wish.short else CHAOS)
    plugins = ["-p", "tests.chaos.controls", "-p", "tests.chaos.order"]
    side_by_side = ["-n", str(wish.jobs), "--dist", "load", "--maxschedchunk", "1"] if wish.jobs > 1 else []
    return [
        sys.executable, "-m", "pytest", "-q", "-m", "not slow" if wish.short else "slow", f"--timeout={TEST_SECONDS}",
        f"--junitxml={folder / 'junit.xml'}", *plugins, *side_by_side, *chosen,
    ]  # fmt: skip


def _report(wish: argparse.Namespace) -> int:
    folder = _found(wish.run)
    if folder is None:
        print(f"no chaos run {wish.run or ''} under {RUNS}: counterfoil chaos run", file=sys.stderr)
        return NO_RUN
    return _tell(folder, as_json=wish.json)


def _found(run: str | None) -> Path | None:
    named = (
        [Path(run), RUNS / run] if run else sorted(RUNS.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    )
    return next((path for path in named if (path / "run.json").is_file()), None)


def _tell(folder: Path, *, as_json: bool) -> int:
    facts: dict[str, Any] = json.loads((folder / "run.json").read_text())
    layers = read(folder / "book.jsonl")
    short = short_of(layers) if facts["whole"] else []
    if as_json:
        print(json.dumps({**facts, "folder": str(folder), "layers": document(layers), "short_of": short}))
    else:
        print(table(layers))
        print(f"\nseed {facts['seed']}, {facts['seconds'] / 60:.0f} min; repeat with: {facts['again']}")
        print("\n".join(f"owed and not done: {line}" for line in short) or "nothing owed is missing")
        print("green" if facts["tests_green"] else "RED: a test failed, see above or junit.xml")
    if not facts["tests_green"]:
        return RED
    return SHORT if short else GREEN


if __name__ == "__main__":
    sys.exit(main())
