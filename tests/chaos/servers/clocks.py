"""Wrong wall clocks for single processes, by libfaketime; the monotonic clock is left alone, as it is by a stepped clock.

A program that is to have another time is started cold (a fork of the nursery has its clock already). A server whose clock
is stepped reads its offset from a file, again at each look.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.program import Program
from tests.flow.system import System

NO_FAKETIME = "libfaketime is not here: apt-get install libfaketime, then run this again"
_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")


def library() -> str | None:
    """Where libfaketime is, None if it is not installed."""
    return next((str(path) for place in _LIBRARIES for path in Path("/").glob(place[1:])), None)


def skewed(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is off by `offset`: `-3h`, `+40d`."""
    return {"LD_PRELOAD": str(library()), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def stepped(file: Path) -> dict[str, str]:
    """The environment of a process whose clock is off by what `file` says at each look."""
    return {
        "LD_PRELOAD": str(library()), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


def start(system: System, name: str, argv: list[str], offset: str, **more: str) -> Program:
    """A program of ours with a clock of its own."""
    with _environment(skewed(offset)):
        return system.start(name, argv, cold=True, **more)


def worker(system: System, offset: str, *, lanes: str = "charge,email", **more: str) -> Program:
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency", "4", "-Q", lanes]
    argv = ["celery", "-A", "tasks", "--quiet", "worker", "--pool", "threads", *flags]
    return start(system, "worker-threads", argv, offset, **more)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in more.items():
            patch.setitem(os.environ, name, value)
        yield
