"""Who must notice that a guard is missing: each layer's cells, run and told as red (found, with its sentence) or green.

A cell is a test that takes the guard out and passes when its layer goes red. The simulation tells by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.guards.registry import GUARDS, Guard

ROOT = Path(__file__).resolve().parents[2]
STORY = (
    "tests/guards/test_promises_break_without_their_guard.py::test_the_promise_breaks_without_its_guard_and_only_then"
)
_MODEL = "tests/model/test_model.py::test_each_guard_is_needed"
_FAULTS = "tests/faults/test_guards_removed.py::"
PROCESS_SECONDS = 3_000.0
"""What a layer of processes may take in all; each of its tests has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a layer said. `word`: red (it noticed), green (it did not), – (not applicable, or it could not run here)."""

    word: str
    sentence: str = ""


RED, GREEN, NONE = "red", "green", "–"
FAST = ("model", "simulation", "story", "faults")
LAYERS = (*FAST, "flow", "chaos")


def nodes(layer: str, guard: Guard) -> tuple[str, ...]:
    """The tests that are this guard's cell in a layer; none where it does not apply."""
    if layer == "model":
        return (f"{_MODEL}[{guard.model}]",) if guard.model else ()
    if layer == "story":
        return (f"{STORY}[{guard.name}]",) if guard.story else ()
    if layer == "faults":
        return (f"{_FAULTS}{guard.faults}",) if guard.faults else ()
    if layer == "simulation":
        return (guard.simulation,) if guard.simulation else ()
    return guard.flow if layer == "flow" else guard.chaos


def extras() -> tuple[Guard, ...]:
    """Guards that model or simulation know and no row names: rows of their own, so that none is forgotten."""
    from tests.model.variants import GUARDS as MODELLED
    from tests.simulation.guards import GUARDS as SIMULATED

    known_m, known_s = {guard.model for guard in GUARDS}, {guard.simulation for guard in GUARDS}
    modelled = {guard.name: guard for guard in MODELLED if guard.name not in known_m}
    simulated = {guard.name: guard for guard in SIMULATED if guard.name not in known_s}
    return tuple(
        Guard(
            name.replace("_", " "),
            (modelled.get(name) or simulated[name]).about,
            "",
            "",
            model=name if name in modelled else "",
            simulation=name if name in simulated else "",
        )
        for name in dict.fromkeys([*modelled, *simulated])
    )


def run(layer: str, guards: Iterable[Guard], tell: Callable[[str], None] = lambda _: None) -> dict[str, Cell]:
    """Run a layer's cells; the guards without one are left out."""
    asked = {guard.name: nodes(layer, guard) for guard in guards if nodes(layer, guard)}
    if not asked:
        return {}
    tell(f"{layer}: {len(asked)} guards")
    if layer == "simulation":
        return _simulated({name: names[0] for name, names in asked.items()})
    outcomes = _tested(sorted({node for found in asked.values() for node in found}))
    cells = {name: _cell([c for node in found for c in _of(outcomes, node)]) for name, found in asked.items()}
    if layer == "model":
        cells |= {g.name: Cell(RED, _promise(g)) for g in guards if g.name in cells and cells[g.name].word == RED}
    return cells


def _cell(found: list[Cell]) -> Cell:
    """Red if one test found it: several are one layer's ways to look."""
    return next((c for word in (RED, GREEN, NONE) for c in found if c.word == word), Cell(NONE))


def _promise(guard: Guard) -> str:
    from tests.model.variants import GUARDS as MODELLED

    return next(f"broken: {removed.breaks}" for removed in MODELLED if removed.name == guard.model)


def _simulated(names: Mapping[str, str]) -> dict[str, Cell]:
    command = [sys.executable, "-m", "tests.simulation", "--guards", "--known", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False)
    assert done.stdout, done.stderr
    rows = {row["guard"]: row for row in json.loads(done.stdout)}
    return {guard: _seen(rows[name]) for guard, name in names.items() if name in rows}


def _seen(row: Mapping[str, object]) -> Cell:
    return Cell(GREEN) if row["seed"] is None else Cell(RED, f"seed {row['seed']}: {row['broken']}")


def _tested(found: list[str]) -> dict[str, Cell]:
    """Run tests in a process of their own. One that passes has seen red; one that was skipped says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "slow or not slow", "-o", "junit_family=xunit1"]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        line = [*command, f"--junit-xml={report}", *found]
        done = subprocess.run(
            line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PROCESS_SECONDS, check=False
        )
        # Else one name that is no longer there would make every cell of the layer one that "could not run here".
        assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), done.stdout + done.stderr
        cases = ET.parse(report).getroot().iter("testcase")  # noqa: S314 - pytest's own file
        return {f"{case.get('classname')}::{case.get('name')}": _read(case) for case in cases}


def collected(found: list[str]) -> None:
    """Raises AssertionError if a test of these is not there."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "slow or not slow", "--collect-only"]  # fmt: skip
    done = subprocess.run([*command, *found], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


def _read(case: ET.Element) -> Cell:
    if case.find("skipped") is not None:
        return Cell(NONE, str(case.find("skipped").get("message")))  # type: ignore[union-attr]
    for word, tag in ((GREEN, "failure"), (NONE, "error")):
        wrong = case.find(tag)
        if wrong is not None:
            return Cell(word, str(wrong.get("message")).partition("\n")[0])
    told = [p.get("value") for p in case.iter("property") if p.get("name") == "broken"]
    return Cell(RED, str(told[0]) if told else str(case.get("name")).replace("_", " ").removeprefix("test "))


def _of(outcomes: Mapping[str, Cell], node: str) -> list[Cell]:
    """What was told of a node, as a report names it; of all its parameters where it names none."""
    path, _, name = node.partition("::")
    told = f"{path.removesuffix('.py').replace('/', '.')}::{name}"
    return [cell for case, cell in outcomes.items() if case == told or case.startswith(f"{told}[")]
