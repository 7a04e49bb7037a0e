"""python -m tests.guards.mutation: change one thing in the code at a time; a test must notice.

mutmut writes the changed functions (https://mutmut.readthedocs.io) and tells which tests reach each of them; what is
drawn by the seed is tried until the minutes are over, so that a short run is a fair sample of a long one. It works on a
copy of the last commit. Survivors that change nothing anybody could notice are explained in survivors.toml, one by one.

    python -m tests.guards.mutation --minutes 10 --seed 7
    python -m tests.guards.mutation --only service.engine.settlement     all of one module
"""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.server import ROOT, embedded

EXPLAINED = Path(__file__).with_name("survivors.toml")
# What a reader of a log sees is no promise; the words of refusals and of the journal are, and are changed as well.
NOT_CHANGED = [r"^\s*(log\.|level\(|level = |log = )"]
TOLERANCE = 8.0  # a changed function that runs this many times longer than its tests take hangs
START_SECONDS = 60.0  # a process, its imports and a migrated template on a busy machine
GOAL = 0.9
TELL_EVERY = 20
SOUND_SAMPLE = 6  # so many mutants' tests are run once without a change


@dataclass(frozen=True, slots=True)
class Part:
    """A package and the tests that are asked about it. mutmut finds out which of them reach which function."""

    package: str
    killers: tuple[str, ...]


PARTS = (
    Part("service/core", ("tests/unit",)),
    Part("service/engine", ("tests/unit", "tests/store")),
)


@dataclass(slots=True)
class Tally:
    """What became of the mutants of one part."""

    fates: Counter[str] = field(default_factory=Counter)
    survivors: list[str] = field(default_factory=list)
    of: int = 0

    @property
    def tried(self) -> int:
        return self.fates.total()

    @property
    def score(self) -> float:
        """Noticed, of those that could be."""
        could = self.tried - self.fates["explained"]
        return (self.fates["killed"] + self.fates["hung"]) / could if could else 1.0


class Workshop:
    """A copy of the tree in which mutmut has laid out every mutant of one part."""

    def __init__(self, part: Part, folder: Path, database: str) -> None:
        self._part = part
        self._tree = folder / part.package.replace("/", "-")
        self._environment = {n: v for n, v in os.environ.items() if not n.startswith("COV")}
        self._environment |= {"COUNTERFOIL_TEST_DATABASE_URL": database, "PYTHONDONTWRITEBYTECODE": "1"}
        self._durations: dict[str, float] = {}
        self._tests: dict[str, list[str]] = {}
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def lay_out(self) -> list[str]:
        """The names of all mutants; a folder that was kept is used as it was laid out."""
        if not (self._tree / "mutants" / "mutmut-stats.json").exists():
            self._copy()
            self._generate()
        told = json.loads((self._tree / "mutants" / "mutmut-stats.json").read_text())
        self._durations, self._tests = told["duration_by_test"], told["tests_by_mangled_function_name"]
        metas = sorted((self._tree / "mutants" / self._part.package).rglob("*.meta"))
        return [name for meta in metas for name in json.loads(meta.read_text())["exit_code_by_key"]]

    def _generate(self) -> None:
        one = f"{self._part.package.replace('/', '.')}.nothing_of_this_name*"
        made = subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", "2", one],
            cwd=self._tree, env=self._environment, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        # It ends with an error, for there is no such mutant; by then everything is laid out.
        assert (self._tree / "mutants" / "mutmut-stats.json").exists(), made.stdout[-3000:] + made.stderr[-3000:]

    def fate(self, mutant: str) -> str:
        """`killed`, `hung`, `survived`, or `unreached` when no test calls the function."""
        asked = self._tests.get(mutant.rpartition("__mutmut_")[0], [])
        if not asked:
            return "unreached"
        return self._tried(mutant, asked)

    def is_sound(self, mutants: list[str]) -> bool:
        """Whether the tests of these are green while nothing is changed: else everything would look killed."""
        asked = {test for mutant in mutants for test in self._tests.get(mutant.rpartition("__mutmut_")[0], [])}
        return self._tried("", sorted(asked)) == "survived" if asked else True

    def _tried(self, mutant: str, asked: list[str]) -> str:
        quick_first = sorted(asked, key=lambda test: self._durations.get(test, 0.0))
        seconds = START_SECONDS + TOLERANCE * sum(self._durations.get(test, 0.0) for test in asked)
        with self._worker() as worker:
            assert worker.stdin
            assert worker.stdout
            worker.stdin.write(json.dumps({"mutant": mutant, "tests": quick_first, "seconds": seconds}) + "\n")
            worker.stdin.flush()
            told = worker.stdout.readline().strip()
            assert told, "the worker is gone"
            return told

    @contextmanager
    def _worker(self) -> Iterator[subprocess.Popen[str]]:
        """One that nobody else uses; made when there is none."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.guards.mutant_worker"],
                cwd=self._tree / "mutants", env={**self._environment, "MUTANT_UNDER_TEST": ""},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        yield worker
        if worker.poll() is None:
            self._idle.put(worker)

    def close(self) -> None:
        """Let the workers go."""
        while not self._idle.empty():
            worker = self._idle.get()
            assert worker.stdin
            worker.stdin.close()
            worker.wait()

    def change(self, mutant: str) -> str:
        """The lines that differ."""
        shown = subprocess.run(
            [sys.executable, "-m", "mutmut", "show", mutant],
            cwd=self._tree, env=self._environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        lines = [line for line in shown.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        return "\n".join(line[0] + " " + line[1:].strip() for line in lines)

    def _copy(self) -> None:
        self._tree.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(self._tree, filter="data")
        with (self._tree / "pyproject.toml").open("a", encoding="utf-8") as file:
            file.write(_configuration(self._part))


def _configuration(part: Part) -> str:
    """What mutmut reads; written into the copy only."""
    own = {
        "source_paths": [part.package],
        "pytest_add_cli_args_test_selection": list(part.killers),
        "pytest_add_cli_args": ["-p", "no:randomly", "-p", "no:cacheprovider"],
        "also_copy": ["service", "tasks", "fakes", "migrations", "tests", "docs", "alembic.ini"],
        "do_not_mutate_patterns": NOT_CHANGED,
    }
    return "\n[tool.mutmut]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in own.items())


def explained() -> dict[tuple[str, str], str]:
    """Survivors that are no gap: function and changed lines, with the reason."""
    if not EXPLAINED.exists():
        return {}
    rows = tomllib.loads(EXPLAINED.read_text())["equivalent"]
    return {(row["function"], row["change"].strip()): row["because"] for row in rows}


def _function(mutant: str) -> str:
    return mutant.rpartition("__mutmut_")[0].replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")


def try_part(workshop: Workshop, drawn: list[str], until: float, jobs: int) -> Iterator[tuple[str, str]]:
    """Each mutant and its fate, until the time is over."""

    def one(mutant: str) -> tuple[str, str]:
        return (mutant, workshop.fate(mutant)) if monotonic() < until else (mutant, "")

    with ThreadPoolExecutor(jobs) as pool:
        yield from (found for found in pool.map(one, drawn) if found[1])


@contextmanager
def _ground(keep: str | None) -> Iterator[tuple[Path, str]]:
    """A folder and a database server."""
    folder = Path(keep or tempfile.mkdtemp(prefix="counterfoil-mutants-"))
    try:
        with embedded(folder / "postgres") as server:
            yield folder, server.url
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def run(part: Part, folder: Path, database: str, wish: argparse.Namespace, minutes: float) -> Tally:
    """Try what the seed draws of one part, and say so."""
    workshop = Workshop(part, folder, database)
    names = workshop.lay_out()
    drawn = (
        [name for name in names if wish.only in name]
        if wish.only
        else random.Random(wish.seed).sample(names, len(names))
    )
    tally, known = Tally(of=len(names)), explained()
    assert workshop.is_sound(drawn[:SOUND_SAMPLE]), "the tests are red without any change"
    for mutant, fate in try_part(workshop, drawn, monotonic() + 60 * minutes, wish.jobs):
        told = fate
        if fate in ("survived", "unreached"):
            change = workshop.change(mutant)
            told = "explained" if (_function(mutant), change) in known else fate
            if told != "explained":
                tally.survivors.append(f"{_function(mutant)} ({fate})\n{change}")
                print(f"\n{tally.survivors[-1]}", flush=True)
        tally.fates[told] += 1
        if not tally.tried % TELL_EVERY:
            print(f"… {_said(part.package, tally)}", flush=True)
    workshop.close()
    return tally


def main(argv: list[str] | None = None) -> int:
    """0 when each part reaches the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards.mutation", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="in all, besides laying out")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--only", default="", help="mutants whose name contains this; all of them")
    parser.add_argument("--part", choices=[part.package for part in PARTS], action="append")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", help="a folder to work in and to leave behind")
    wish = parser.parse_args(argv)
    parts = [p for p in PARTS if (not wish.part or p.package in wish.part) and _concerns(p, wish.only)]
    print(f"SEED={wish.seed}", flush=True)
    tallies: dict[str, Tally] = {}
    with _ground(wish.keep) as (folder, database):
        for part in parts:
            tallies[part.package] = run(part, folder, database, wish, wish.minutes / len(parts))
            print(f"\n{_said(part.package, tallies[part.package])}", flush=True)
    print("\n".join(["", *(_said(name, tally) for name, tally in tallies.items())]))
    return 0 if all(tally.score >= GOAL for tally in tallies.values()) else 1


def _concerns(part: Part, only: str) -> bool:
    package = part.package.replace("/", ".")
    return not only or not only.startswith("service.") or only.startswith(package)


def _said(name: str, tally: Tally) -> str:
    fates: Mapping[str, int] = tally.fates
    words = ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items()))
    return f"{name}: {tally.score:.1%} noticed of {tally.tried} tried ({words}); {tally.of} there are"


if __name__ == "__main__":
    sys.exit(main())
