"""Where the embedded servers of a state directory answer, for any process of this machine that may read it.

The answer is believed only while its author lives: the owner holds a lock on `owner.lock` from before the first
server starts until after the last one stopped, and the kernel releases it however the owner dies. So a file left
behind by a `kill -9` never sends anyone to a port that belongs to somebody else by now.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from service.core.errors import SetupError

_FILE = "servers.json"
_LOCK = "owner.lock"
# A reader holds the lock shared for microseconds while it looks; an owner-to-be waits that long and much more.
_LOCK_PATIENCE_SECONDS = 1.0
_PRIVATE = 0o600


@dataclass(frozen=True)
class Addresses:
    """URLs with their passwords; None for a server that was not asked for."""

    database_url: str | None
    broker_url: str | None


def running(state_dir: Path) -> Addresses | None:
    """The addresses, if a live process owns the servers of this directory and they are up."""
    found = _read(state_dir)
    if found is None or not _alive(int(found["pid"])) or not _locked(state_dir):
        return None
    return Addresses(found["database_url"], found["broker_url"])


def announce(state_dir: Path, addresses: Addresses) -> None:
    """Write the addresses in one step, readable by the owner only."""
    document = {"pid": os.getpid(), **asdict(addresses)}
    write_private(state_dir / _FILE, json.dumps(document, indent=2) + "\n")


def withdraw(state_dir: Path) -> None:
    """From here on nobody new is sent to these servers."""
    (state_dir / _FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, on the disk when it returns, mode 0600 from its first byte."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


class Ownership:
    """The right to run servers in a state directory; one process has it at a time."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._descriptor: int | None = None
        self._pid = 0

    def take(self) -> None:
        """Own the directory, or raise SetupError that says who does and what to do."""
        descriptor = os.open(self._state_dir / _LOCK, os.O_RDWR | os.O_CREAT, _PRIVATE)
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _flock(descriptor, exclusive=True):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise SetupError(self._refusal())
            time.sleep(0.02)
        self._descriptor = descriptor
        self._pid = os.getpid()
        withdraw(self._state_dir)  # What a dead owner left behind.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Leave the directory to whoever comes next. The file stays: unlinking a lock file opens a race."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def held(self) -> bool:
        """True between take and release; never in a forked child, which inherits the object but not the servers."""
        return self._descriptor is not None and self._pid == os.getpid()

    def _refusal(self) -> str:
        holder = (self._state_dir / _LOCK).read_text().strip() or "unknown"
        return (
            f"process {holder} already runs the embedded servers of {self._state_dir}: use them (they are found by "
            "themselves), stop that process first, or choose another COUNTERFOIL_STATE_DIR"
        )


def _read(state_dir: Path) -> dict[str, str] | None:
    try:
        document = json.loads((state_dir / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and "pid" in document else None


def _locked(state_dir: Path) -> bool:
    try:
        descriptor = os.open(state_dir / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _flock(descriptor, exclusive=False)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, exclusive: bool) -> bool:
    if sys.platform == "win32":
        raise SetupError(
            "the embedded servers need Linux or macOS: set COUNTERFOIL_DATABASE_URL and COUNTERFOIL_BROKER_URL"
        )
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
