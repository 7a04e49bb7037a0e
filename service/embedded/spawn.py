"""Starts child processes that die when we die, however we die, and that a terminal's Ctrl-C does not reach.

Linux sends the death signal when the *thread* that forked ends, not only the process (prctl(2),
PR_SET_PDEATHSIG). So one thread that lives as long as the process does all the forking, and `spawn` may be
called from any thread, however short its life.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

_LAUNCHER = Path(__file__).with_name("launch.py")
_Job = tuple[Callable[[], "subprocess.Popen[bytes]"], "Future[subprocess.Popen[bytes]]"]

Output = int | IO[Any] | None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Output = subprocess.DEVNULL,
    stdout: Output = None,
    stderr: Output = subprocess.STDOUT,
    owner: tuple[int, int] | None = None,
    death_signal: int = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """One child in a session of its own. `death_signal` is what it gets when we are gone, `owner` its uid and gid.

    A program that does not exist shows as exit code 127 with one line on its stderr.
    """
    uid, gid = owner or (-1, -1)
    prefix = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*prefix, "--", *argv],
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    done: Future[subprocess.Popen[bytes]] = Future()
    _nursery().put((start, done))
    return done.result()


class _Nursery:
    """The thread that forks. Started on first use, started afresh in a forked child, which inherits no threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: queue.SimpleQueue[_Job] | None = None

    def open(self) -> queue.SimpleQueue[_Job]:
        with self.lock:
            if self.jobs is None:
                self.jobs = queue.SimpleQueue()
                # A daemon thread, because a joined one would end (and take the children with it) before the
                # exit handlers that stop them in order have run.
                threading.Thread(target=_serve, args=(self.jobs,), name="nursery", daemon=True).start()
            return self.jobs

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.jobs = None


_THE_NURSERY = _Nursery()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_THE_NURSERY.forget)


def _nursery() -> queue.SimpleQueue[_Job]:
    return _THE_NURSERY.open()


def _serve(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        start, done = jobs.get()
        try:
            done.set_result(start())
        except BaseException as error:  # noqa: BLE001 - raised again where spawn was called
            done.set_exception(error)
