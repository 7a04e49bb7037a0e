"""docs/runbook.md alone leads from `outbox stats` to a stuck row, why it is stuck, and its end.

The lines after `$` in its first walk are taken from the page and typed into a real terminal, against a real relay and
worker. What the terminal shows must be what the page shows; ids and times are put aside, and an id that the page
repeats must be the same one here as well, so that each command acts on what the one before has shown.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flow.nursery import ROOT
from tests.flow.system import System

PAGE = (Path(ROOT) / "docs" / "runbook.md").read_text()
START, END = "<!-- walk -->", "<!-- end of the walk -->"
WALK_SECONDS_MAX = 120.0  # the promise of the page
_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b[0-9a-f]{12}\b")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
_ASIDE = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:\+00:00|Z)?"), "TIME"),
    (re.compile(r"\b\d+:\d\d:\d\d\b|\b(?:\d+[smhd] )?\d+[smhd]\b"), "AGE"),
    (re.compile(r"postgresql\S*://\S+"), "TARGET"),
    (re.compile(r"order:\d+:"), "order:NUMBER:"),
    (re.compile(r"\b[\w.-]+@[\w.-]+"), "WHO"),
    (re.compile(r"\b[\w.-]+:\d{2,}\b"), "WHO"),
    (re.compile(r"\b(pi|ch|req)_\w+"), r"\1_X"),
    (re.compile(r"[─━╸╺]+"), "---"),
)


@dataclass
class Step:
    """One command of the page and what it shows there."""

    command: str
    shown: list[str] = field(default_factory=list)


def walk() -> list[Step]:
    """The commands between the two marks of the page, in order."""
    part = PAGE.partition(START)[2].partition(END)[0]
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line.removeprefix("$ ")))
            else:
                steps[-1].shown.append(line)
    return steps


def plain(lines: list[str]) -> list[str]:
    """The words that are the same each time: no ids, times, names of machines, nor where a line was broken."""
    said = _ID.sub("ID", "\n".join(lines))
    for pattern, word in _ASIDE:
        said = pattern.sub(word, said)
    return said.split()


class Terminal:
    """A terminal of 120 columns, and the commands that a person types into it."""

    def __init__(self, settings: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
        own = {f"COUNTERFOIL_{name}": value for name, value in settings.items()}
        self._env = {**kept, **own, "COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}

    def type(self, command: str) -> tuple[int, list[str]]:
        """Run it to its end; exit code and lines."""
        first, *words = shlex.split(command)
        assert first == "counterfoil", command
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "service", *words], stdin=slave, stdout=slave, stderr=slave, env=self._env,
            start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        os.close(slave)
        try:
            said = _all(master)
        finally:
            os.close(master)
            code = process.wait(30)
        return code, [_last(line) for line in said.split("\n")]


def _last(line: str) -> str:
    """What stands there in the end, of a line that was drawn over again and again."""
    drawn = [_ESCAPES.sub("", part).rstrip() for part in re.split(r"\r|\x1b\[2K", line)]
    return next((part for part in reversed(drawn) if part), "")


def _all(master: int, seconds: float = 60) -> str:
    """Everything until the program closes the terminal."""
    said, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            read = os.read(master, 65536)
        except OSError:  # Linux says so when the other end is closed
            return said.decode()
        if not read:
            return said.decode()
        said += read
    raise AssertionError(f"still at it: {said.decode()[-2000:]}")


@pytest.fixture
def stuck(system: System) -> list[str]:
    """Three charges that were refused with a key of yesterday, one after the other, each with all its attempts."""
    system.stripe.fault("status_401", times=1000)
    system.ready(system.worker(ATTEMPT_BUDGET="1"))
    system.relay()
    ids = []
    for _ in range(3):
        ids.append(system.charge())
        system.reaches(ids[-1], "parked")
    return ids


def test_from_stats_to_the_end_of_a_stuck_row_in_less_than_two_minutes(system: System, stuck: list[str]) -> None:
    terminal, known, begun = Terminal(system.settings), dict[str, str](), time.monotonic()
    steps = walk()
    assert [step.command.split()[1:3] for step in steps][:2] == [["outbox", "stats"], ["effects", "show"]]
    for step in steps:
        if "replay" in step.command:  # between looking and replaying the page has the key mended
            system.stripe.admin("faults", method="DELETE")
        words = _ID.sub(lambda found: known[found[0]], step.command)
        code, said = terminal.type(words)
        assert code == 0, (words, said)
        assert plain(said) == plain(step.shown), "\n".join([words, *said])
        there, here = (_ID.findall("\n".join(lines)) for lines in (step.shown, said))
        for one, other in zip(there, here, strict=True):
            assert known.setdefault(one, other) == other, (words, one, other)
    assert time.monotonic() - begun < WALK_SECONDS_MAX
    assert [system.charged(one) for one in stuck] == [1, 1, 1]
    system.oracle.check()
