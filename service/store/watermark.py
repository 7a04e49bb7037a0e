"""The watermark: what this host has seen of the database, kept in STATE_DIR, outside of any backup of the database.

One small record for all processes of the host, raised at each claim before anything is sent and never lowered within a
life of the database. It is not synced: a machine that loses power forgets a moment of it, which only makes it less
suspicious for that moment; the database's own row still tells a new timeline.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from service.core.errors import SettingsError
from service.store.incarnation import NOTHING, Seen

FILE = "watermark"
RECORD_BYTES = 256  # one record of fixed size, written by one call: no reader ever sees half of it
_PRIVATE = 0o600


class Watermark:
    """The record of one state directory. Made after a fork, used by any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        self._file: int | None = None
        self._turn = threading.Lock()  # flock knows processes, not threads

    def seen(self) -> Seen:
        """What was seen last; NOTHING on a new host. Raises SettingsError when the directory cannot be used."""
        return _decoded(os.pread(self._opened(), RECORD_BYTES, 0), self._path)

    def peek(self) -> Seen:
        """The same for a process that only looks: without a file, or without the right to it, it has seen nothing."""
        try:
            return _decoded(self._path.read_bytes(), self._path)
        except OSError:
            return NOTHING

    def saw(self, now: Seen) -> None:
        """Remember, unless another thread or process has seen more of this database."""
        file = self._opened()
        with self._turn, _locked(file):
            before = _decoded(os.pread(file, RECORD_BYTES, 0), self._path)
            if before.database != now.database or (now.life, now.lsn) > (before.life, before.lsn):
                os.pwrite(file, json.dumps(asdict(now)).encode().ljust(RECORD_BYTES), 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _opened(self) -> int:
        if self._file is None:
            with self._turn:
                if self._file is None:
                    self._file = self._open()
        return self._file

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, _PRIVATE)
        except OSError as error:
            raise SettingsError(
                f"COUNTERFOIL_STATE_DIR: {self._path} cannot be written ({error.strerror}), and without it "
                "nothing is sent, because it tells a database that went back in time: name a directory that can be",
                field="COUNTERFOIL_STATE_DIR",
            ) from None


def _decoded(record: bytes, path: Path) -> Seen:
    if not record.strip():
        return NOTHING
    try:
        return Seen(**json.loads(record))
    except (ValueError, TypeError):
        raise SettingsError(
            f"COUNTERFOIL_STATE_DIR: {path} is damaged; look at `counterfoil recover`, then remove it",
            field="COUNTERFOIL_STATE_DIR",
        ) from None


@contextmanager
def _locked(file: int) -> Iterator[None]:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
