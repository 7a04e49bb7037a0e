"""Before a server starts, nothing of an earlier life of it is left running, and only what is truly ours is ended.

A parent that was killed with SIGKILL takes its servers along on Linux (spawn.py), but they may need a moment, and
elsewhere they live on. A Postgres whose postmaster was killed leaves backends that hold shared memory until they
notice. Two servers on one data directory would destroy it, so we look for processes by their *working directory*,
which is the data directory for each process of a cluster and cannot be mistaken the way a process id from an
old pid file can, once the number was given to somebody else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from service.core.errors import SetupError

_PROC = Path("/proc/self")  # Linux has it; macOS does not.
_NAMES = ("postgres", "valkey", "redis")
# How long each step may take: leave by yourself, fast stop, immediate stop, no choice. A backend that computes
# without looking up notices the loss of its postmaster only by a signal.
LADDER = ((None, 1.0), (signal.SIGINT, 3.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0))
Ladder = Sequence[tuple[signal.Signals | None, float]]


def clear(directory: Path, pid_file: Path, *, ladder: Ladder = LADDER) -> None:
    """Return when no server process of this directory lives and its stale pid file is gone."""
    for step, seconds in ladder:
        pids = _living(directory, pid_file)
        for pid in pids:
            _send(pid, step)
        deadline = time.monotonic() + seconds
        while pids and time.monotonic() < deadline:
            time.sleep(0.02)
            pids = _living(directory, pid_file)
        if not pids:
            break
    else:
        raise SetupError(f"an earlier server of {directory} does not end: stop process {pids[0]} and start again")
    # Now provably stale, whatever its number belongs to today; the server would refuse to start over a zombie's.
    pid_file.unlink(missing_ok=True)


def _living(directory: Path, pid_file: Path) -> list[int]:
    if _PROC.is_dir():
        return [int(entry.name) for entry in _PROC.parent.iterdir() if _works_in(entry, directory)]
    return _by_pid_file(pid_file, directory)


def _works_in(process: Path, directory: Path) -> bool:
    """Zombies have no working directory, so they do not count; other people's processes cannot be read."""
    if not process.name.isdigit():
        return False
    try:
        return (
            (process / "cwd").readlink() == directory
            and int(process.name) != os.getpid()
            and (process / "comm").read_text().startswith(_NAMES)
        )
    except OSError:
        return False


def _by_pid_file(pid_file: Path, directory: Path) -> list[int]:
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return []
    shown = subprocess.run(
        ["ps", "-ww", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [pid] if str(directory) in shown and not shown.startswith("Z") else []


def _send(pid: int, step: signal.Signals | None) -> None:
    if step is None:
        return
    try:
        os.kill(pid, step)
    except ProcessLookupError:
        return
