"""`python -m tests.badinput [--count 1000000] [--seed N] [--json]`: bad input through every door, and what it did.

Some ways to call it:

    make bad-input                              # a million, half an hour or so
    python -m tests.badinput --count 50000 --seed 7
    python -m tests.badinput --json

Exit codes: 0 every input was refused in words or dropped with one line · 1 one was not; it is shown with its seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[2]
MILLION = 1_000_000
WAYS_SHOWN = 5


def main() -> int:
    reads = argparse.ArgumentParser(
        prog="python -m tests.badinput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reads.add_argument("--count", type=int, default=MILLION)
    reads.add_argument("--seed", type=int, help="default: a new one, printed with the command that repeats it")
    reads.add_argument("--json", action="store_true")
    wish = reads.parse_args()
    seed = wish.seed if wish.seed is not None else random.SystemRandom().randrange(2**32)
    print(
        f"seed {seed}; repeat with: python -m tests.badinput --count {wish.count} --seed {seed}",
        file=sys.stderr,
        flush=True,
    )
    begun = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "report.json"
        environment = {
            **os.environ,
            "COUNTERFOIL_TEST_SEED": str(seed),
            "COUNTERFOIL_TEST_BAD_INPUTS": str(wish.count),
            "COUNTERFOIL_TEST_BAD_INPUT_REPORT": str(place),
        }
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:randomly", "--timeout=5400", "tests/badinput"]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        if done.returncode or not place.exists():
            return 1
        report = json.loads(place.read_text())
    report |= {"seconds": round(monotonic() - begun), "inputs": sum(door["inputs"] for door in report["doors"])}
    print(json.dumps(report) if wish.json else _table(report))
    return 0


def _table(report: dict) -> str:  # type: ignore[type-arg]
    lines = []
    for door in report["doors"]:
        ways = sorted(door["ways"].items(), key=lambda way: -way[1])
        some = ", ".join(name for name, _ in ways[:WAYS_SHOWN])
        answers = ", ".join(f"{name}: {count:,}" for name, count in sorted(door["answers"].items()))
        lines.append(f"{door['door']:<10}{door['inputs']:>10,}  {len(ways)} ways ({some}, …); {answers}")
    total = f"{report['inputs']:,} bad inputs in {report['seconds']} s, seed {report['seed']}: each refused in words or dropped with one line"
    return "\n".join([*lines, total, "no unhandled error, no effect, nothing planted repeated"])


if __name__ == "__main__":
    sys.exit(main())
