"""What the doctor's tests share: one check of a run, a spoiled database, a wire that changes a word on its way."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg

from tests.flow.doors import Wire
from tests.flow.terminal import Run

T = TypeVar("T")
SHOWN: set[str] = set()


def shows(*names: str) -> Callable[[T], T]:
    """Marks a test that makes these checks fail."""

    def mark(test: T) -> T:
        SHOWN.update(names)
        return test

    return mark


def check(run: Run, name: str, **settings: str) -> dict[str, Any]:
    """One check as `doctor --json` has it."""
    found = json.loads(run("doctor", "--json", **settings).stdout)
    return next(one for one in found["checks"] if one["name"] == name)


def failing(run: Run, name: str, *, found: str, means: str, fix: str, **settings: str) -> None:
    """The check fails, and each of its sentences says what it should."""
    said = check(run, name, **settings)
    assert not said["ok"], said
    assert found in said["found"], said
    assert means in said["meaning"], said
    assert fix in said["fix"], said


@contextmanager
def spoiled(url: str, do: str, undo: str) -> Iterator[None]:
    """The database with something wrong in it, whatever its triggers would say."""
    with psycopg.connect(url, autocommit=True) as db:
        _with_triggers(db, "disable")
        try:
            db.execute(do.encode())
            _with_triggers(db, "enable")
            yield
        finally:
            _with_triggers(db, "disable")
            db.execute(undo.encode())
            _with_triggers(db, "enable")


def _with_triggers(db: psycopg.Connection, what: str) -> None:
    for table in ("effects", "outbox"):
        db.execute(f"alter table {table} {what} trigger user".encode())


class Changing(Wire):
    """A wire to Postgres on which a few bytes become others, as many: what no server here would say or do by itself."""

    def __init__(self, url: str, changes: dict[bytes, bytes]) -> None:
        assert all(len(one) == len(other) for one, other in changes.items())
        self._changes = changes
        super().__init__(url)

    def _accept(self, listener: socket.socket) -> None:
        import threading

        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._pairs += [near, far]
            threading.Thread(target=self._changed, args=(near, far), daemon=True).start()

    def _changed(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, suppress(OSError, ValueError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    for one, instead in self._changes.items():
                        data = data.replace(one, instead)
                    other[end].sendall(data)


@contextmanager
def changing(url: str, changes: dict[bytes, bytes]) -> Iterator[str]:
    """The URL of the same database behind such a wire."""
    wire = Changing(url, changes)
    try:
        yield wire.url
    finally:
        wire.cut()
