"""Fakes started as processes of their own, for the tests that talk to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(POLL_SECONDS)
    return found


class FakeServer:
    """One fake process and its back door."""

    def __init__(self, kind: str, state: Path, *arguments: str) -> None:
        self.kind = kind
        self.state = state
        self._arguments = arguments
        self.process: subprocess.Popen[str] | None = None
        self.address: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "fakes", self.kind, "--state", str(self.state), *self._arguments]
        # A restart comes back on the ports of the first life, as a real provider does.
        for option in ("port", "admin_port", "smtp_port", "http_port"):
            if option in self.address:
                command += [f"--{option.replace('_', '-')}", str(self.address[option])]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the {self.kind} fake did not start: exit code {self.process.wait(START_SECONDS)}"
        self.address = json.loads(line)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def wait_dead(self) -> int:
        assert self.process
        code = self.process.wait(10)
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def _end(self, number: signal.Signals) -> int:
        assert self.process
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.wait_dead()

    def admin(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> dict[str, Any]:
        """One call to the back door; with a body it is a POST."""
        request = urllib.request.Request(
            f"{self.address['admin_url']}/_fake/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return dict(json.load(answer))

    def fault(self, action: str, **rule: Any) -> int:
        return int(self.admin("faults", {"action": action, **rule})["id"])

    def holding(self) -> int:
        return sum(fault["holding"] for fault in self.admin("faults")["faults"])

    def hits(self) -> int:
        return sum(fault["hits"] for fault in self.admin("faults")["faults"])

    def advance(self, hours: float) -> None:
        self.admin("clock", {"advance_seconds": hours * 3600})

    def reset(self) -> None:
        """Forget all faults between tests; what was recorded stays."""
        self.admin("faults", method="DELETE")


@contextmanager
def running(kind: str, state: Path, *arguments: str) -> Iterator[FakeServer]:
    """A fake for the length of a test; gone afterwards however the test ended."""
    server = FakeServer(kind, state, *arguments)
    try:
        yield server
    finally:
        server.kill()
