"""The bell wakes a relay after a commit. It is a hint: a lost ring costs one poll, never an effect.

Never rung inside the caller's transaction: a NOTIFY there takes a lock at commit that every notifying writer of the
cluster queues behind, which forbids group commit. A thread of the process rings instead, once for many commits.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakSet

import psycopg
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from service.store import pooler
from service.store.database import Caller, statement

CHANNEL = "counterfoil"
# Sessions and connections whose open transaction has accepted something. Not in their `info`: that of a connection
# whose server went away cannot be reached any more.
_asked: WeakSet[Caller] = WeakSet()
# A busy relay gathers by itself, so it need not hear each commit; a quiet one hears the first at once.
GAP_SECONDS = 0.02
# Nothing is written that would be worth a disk flush, so this one transaction does without.
_RING = text(f"select pg_notify('{CHANNEL}', ''), set_config('synchronous_commit', 'off', true)")


class Bell:
    """One per process: `ring()` never blocks and never fails; a daemon thread does the talking."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._again = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def ring(self, *, early: bool = False) -> None:
        """Ask for a ring soon, and for another one after it if `early`."""
        self._again = self._again or early
        self._wanted.set()

    def close(self) -> None:
        """Ring once more if asked, so that a process that exits right after its commit is heard."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._wanted.clear()
            self._say()
            self._stopping.wait(GAP_SECONDS)
            if self._again:
                self._again = False
                self._wanted.set()
        if self._wanted.is_set():
            self._say()

    @staticmethod
    def _say() -> None:
        try:
            with statement() as connection:
                connection.execute(_RING)
        except Exception:  # noqa: BLE001 - a thread that died of one ring would never ring again
            return  # the poll behind the bell finds the row


@cache
def _bell_of(pid: int) -> Bell:  # noqa: ARG001 - the pid is the key: a forked child has no thread of its parent's
    return Bell()


def ring(*, early: bool = False) -> None:
    """Wake a relay soon; `early`: the commit is only about to happen, so ring a second time a moment later."""
    _bell_of(os.getpid()).ring(early=early)


def ring_after_commit(caller: Caller) -> None:
    """Ring once when the caller's transaction has committed; a rolled-back one rings nobody."""
    _asked.add(caller)
    # Core has no event after the commit, only right before: the bell then rings twice.
    moment = "after_commit" if isinstance(caller, Session) else "commit"
    # One listener for the life of a session, however many effects it accepts: SQLAlchemy never lets go of a `once` one.
    if not event.contains(caller, moment, _committed):
        event.listen(caller, moment, _committed)
        event.listen(caller, "after_rollback" if isinstance(caller, Session) else "rollback", _rolled_back)


def _committed(caller: Caller) -> None:
    # A session calls a released savepoint a commit as well; ringing then would leave nothing for the real one.
    if isinstance(caller, Session) and caller.in_nested_transaction():
        return
    if caller in _asked:
        _asked.discard(caller)
        ring(early=not isinstance(caller, Session))


def _rolled_back(caller: Caller) -> None:
    _asked.discard(caller)


@contextmanager
def listening() -> Iterator[Listener]:
    """A connection of its own that hears the bell, unless a pooler stands before Postgres.

    Raises psycopg.Error or CounterfoilError when Postgres is away.
    """
    with statement() as connection:
        raw = pooler.driver_connection(connection)
        # Behind a pooler nothing would be heard, and a session that others use next would go on listening.
        if not pooler.stands_before(raw):
            raw.execute(f"listen {CHANNEL}")
        try:
            yield Listener(raw)
        finally:
            # Not back to the pool, where it would go on hearing; and no farewell to a server that may be gone.
            connection.invalidate()


class Listener:
    """Waits for the bell; if it is `deaf`, only for the time to pass."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.deaf = pooler.stands_before(raw)
        self._raw = raw

    def wait(self, seconds: float) -> bool:
        """Sleep until the bell rings or `seconds` are over; rings that have piled up count as one."""
        return bool(list(self._raw.notifies(timeout=max(0.0, seconds), stop_after=1)))
