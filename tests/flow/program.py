"""One process of ours: started, killed, paused or told to stop by its id, and what it has logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.flow.nursery import ROOT, Nursery
from tests.flow.waiting import until


class Program:
    """One process of ours, in a session of its own."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str], log: Path, nursery: Nursery | None) -> None:
        self.name = name
        self.expected_to_run = not name.startswith("caller")
        self._log = log
        self._nursery = nursery
        self._child: subprocess.Popen[bytes] | None = None
        module, *arguments = argv
        if nursery:
            self.pid = nursery.start(module, arguments, env, log)
            return
        with log.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *argv], cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self._child.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._child:
            return self._child.poll()
        assert self._nursery
        return self._nursery.exit_code(self.pid)

    def signal(self, number: signal.Signals) -> None:
        self.expected_to_run = self.expected_to_run and number not in (signal.SIGKILL, signal.SIGTERM)
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the process, and to nobody else: what it leaves behind is part of the test."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 20) -> int:
        until(lambda: self.code is not None, f"{self.name} has ended", seconds)
        assert self.code is not None
        return self.code

    @contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP … SIGCONT."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Its log lines in JSON whose event contains `event`."""
        found = [json.loads(line) for line in self.text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in found if event in str(line.get("event"))]

    def end(self) -> None:
        """Gone, with whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)
        until(lambda: self.code is not None, f"{self.name} has ended", 20)
