"""One server process of ours: started in the foreground as our direct child, reaped by us, stopped by steps.

Never daemonised: a server that was killed and not reaped stays a zombie, and its next start refuses because
"another server is running".
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from service.core.errors import SetupError
from service.embedded.address import Ownership

# From nothing to ready takes well under a second; crash recovery of a large cluster may take a while.
START_SECONDS = 60.0
_POLL_SECONDS = 0.02
# Beyond this the log of the last life is set aside at start (one old file is kept).
_LOG_LIMIT_BYTES = 5_000_000
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
# What a server may see of our environment: no credential of the service is any business of it.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class Server(ABC):
    """What Postgres and Valkey have in common. All methods may be called from any thread."""

    name: str
    stop_steps: Sequence[tuple[signal.Signals, float]]

    def __init__(self, state_dir: Path, ownership: Ownership, announce: Callable[[], None]) -> None:
        self.directory = state_dir / self.name
        self.log = state_dir / f"{self.name}.log"
        self.port = 0
        self._ownership = ownership
        self._announce = announce
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL clients use, password included."""

    @abstractmethod
    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Clear what an earlier life left, and start the process."""

    @abstractmethod
    def _ready(self) -> bool:
        """True once it answers."""

    @abstractmethod
    def _again(self, complaint: str) -> bool:
        """True if what it complained of when it died goes away by starting once more."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def alive(self) -> bool:
        """True while the process runs (it may still be recovering)."""
        return self.pid is not None

    def start(self) -> None:
        """Return when it answers; nothing happens if it already runs. Raises SetupError with its own last words."""
        with self._lock:
            # Clearing orphans would end the servers of whoever does own the directory.
            if not self._ownership.held:
                raise SetupError(f"{self.directory.parent} is not ours: start the Servers, which take it, first")
            if self.alive():
                return
            deadline = time.monotonic() + START_SECONDS
            while not self._attempt(deadline):
                time.sleep(_POLL_SECONDS)
            self._announce()

    def stop(self) -> None:
        """Ask politely, insist, and in the end do not ask; reaped when it returns."""
        with self._lock:
            process = self._process
            if process is None:
                return
            for step, seconds in self.stop_steps:
                if process.poll() is None:
                    process.send_signal(step)
                try:
                    process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                process.kill()
                process.wait()
            self._process = None

    def kill(self) -> None:
        """SIGKILL, and reap: what a power cut would do to it."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None

    def restart(self) -> None:
        """Stop if it runs, and start on the same data and, unless somebody took it, the same port."""
        with self._lock:
            self.stop()
            self.start()

    def _attempt(self, deadline: float) -> bool:
        """True when ready, False to try once more."""
        _rotate(self.log)
        with os.fdopen(os.open(self.log, _APPEND, 0o600), "ab") as log:
            begun = log.tell()
            self._process = self._launch(log)
        while not self._ready():
            if not self.alive():
                complaint = _last_words(self.log, begun)
                if self._again(complaint) and time.monotonic() < deadline:
                    return False
                raise SetupError(f"{self.name} did not start: {complaint or 'it said nothing'} (see {self.log})")
            if time.monotonic() > deadline:
                self.kill()
                raise SetupError(f"{self.name} was not ready after {START_SECONDS:.0f} s: see {self.log}")
            time.sleep(_POLL_SECONDS)
        return True


def environment() -> dict[str, str]:
    """The little a server needs. `PGPORT` and its like in the caller's shell must not steer it."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _last_words(log: Path, begun: int) -> str:
    """The line that names the cause: the first fatal one of this attempt, else its last one."""
    with log.open("rb") as file:
        file.seek(begun)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "ERROR" in line or "annot " in line]
    return (fatal or lines or [""])[0 if fatal else -1]
