"""Starts real programs quickly: a process that has imported the libraries forks each of them.

What starts here is `python -m MODULE ARGUMENTS` in a process, session and log file of its own; only the seconds of
importing are paid once for the run instead of once for each of its hundred programs. Nothing of ours that reads
settings is imported before the fork. gevent wants to be first and is started cold (`Program`).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LIBRARIES = (
    "celery.bin.celery", "celery.apps.worker", "celery.concurrency.thread", "celery.concurrency.prefork",
    "kombu.transport.redis", "kombu.transport.pyamqp", "redis", "psycopg", "sqlalchemy.dialects.postgresql.psycopg",
    "stripe", "stripe._stripe_client", "pydantic_settings", "structlog", "tenacity", "typer", "rich.console", "iso4217", "uuid_utils",
    "sqlalchemy.orm", "opentelemetry.trace.propagation.tracecontext", "smtplib", "email.message",
)  # fmt: skip
_REAP_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1


class Nursery:
    """The test's side: `start` returns a process id, `exit_code` what became of it.

    `also`: libraries to import beside those that every program needs.
    """

    def __init__(self, *also: str) -> None:
        line = [sys.executable, __file__, *also]
        self._process = subprocess.Popen(
            line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._codes: dict[int, int] = {}
        self._born: list[int] = []
        self._tail = b""

    def start(self, module: str, arguments: list[str], environment: dict[str, str], log: Path) -> int:
        """Fork one program."""
        order = {"module": module, "arguments": arguments, "environment": environment, "log": str(log)}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        until = monotonic() + 30
        while not self._born:
            assert monotonic() < until, "the nursery does not answer"
            self._hear(0.5)
        return self._born.pop()

    def exit_code(self, pid: int) -> int | None:
        """As `Popen.returncode`: None while it runs, negative for a signal."""
        self._hear(0)
        return self._codes.get(pid)

    def close(self) -> None:
        """End the nursery; its programs are the business of who started them."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(10)

    def _hear(self, seconds: float) -> None:
        assert self._process.stdout
        while select.select([self._process.stdout], [], [], seconds)[0]:
            read = os.read(self._process.stdout.fileno(), 65536)
            assert read, f"the nursery is gone: {self._process.poll()}"
            *lines, self._tail = (self._tail + read).split(b"\n")
            for line in lines:
                word, number, *code = line.split()
                if word == b"born":
                    # Linux gives out the same number again after some thousands: that its bearer died is old news.
                    self._codes.pop(int(number), None)
                    self._born.append(int(number))
                else:
                    self._codes[int(number)] = int(code[0])
            seconds = 0


def _main() -> None:
    for name in (*_LIBRARIES, *sys.argv[1:]):
        importlib.import_module(name)
    # What is here stays: no program looks through it again for garbage, which took a tenth of a second at each fork.
    gc.collect()
    gc.freeze()
    sys.path.insert(0, str(ROOT))
    job = _wait_for_job()
    if job is not None:
        _become(job)


def _wait_for_job() -> dict[str, Any] | None:
    """Fork for each order; returns the order in the child, None in the parent when nobody listens any more."""
    tail = b""
    while True:
        if select.select([0], [], [], _REAP_SECONDS)[0]:
            read = os.read(0, 65536)
            if not read:
                return None
            *lines, tail = (tail + read).split(b"\n")
            for line in lines:
                pid = os.fork()
                if pid == 0:
                    return dict(json.loads(line))
                os.write(1, b"born %d\n" % pid)
        _reap()


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        os.write(1, b"died %d %d\n" % (pid, os.waitstatus_to_exitcode(status)))


def _become(job: dict[str, Any]) -> None:
    os.setsid()
    # However the run ends, nothing of it goes on: Linux ends us with the nursery, and the nursery ends with pytest.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(job["environment"])
    random.seed()  # a forked copy of the generator's state would give all programs the same jitter
    # A shell that runs the tests in the background has told them to ignore both, and so would a program that sets neither.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    sys.argv = [job["module"], *job["arguments"]]
    if extra := job["environment"].get("PYTHONPATH"):
        # What a cold start would find and run before anything else (the negative controls).
        sys.path[:0] = extra.split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
