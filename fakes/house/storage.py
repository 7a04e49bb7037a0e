"""A write is answered only when it is on the disk, and many writes share one fsync.

One thread owns one SQLite connection (`synchronous=FULL`). It takes everything that queued up while the last commit
was reaching the disk, runs each job in its own savepoint, commits once, and only then lets the callers go on. So a
fake that answered can be killed with SIGKILL at any instant and still knows what it did.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

# Log lines nobody waits for ride along with the next commit, or get their own after this long.
DEFERRED_FLUSH_SECONDS = 0.02


class _Job:
    """One piece of work and, for a waiting caller, the future that hears how it went."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work, future: asyncio.Future[Any] | None) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Run inside a savepoint: a job that fails leaves its neighbours' work alone."""
        connection.execute("SAVEPOINT job")
        try:
            self.result = self.work(connection)
        except Exception as error:  # noqa: BLE001 - handed to the caller who waits for it
            self.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def resolve(self) -> None:
        if self.future is None or self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Storage:
    """The durable side of one fake. Created inside the running event loop that will use it."""

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._schema = schema
        self._loop = asyncio.get_running_loop()
        self._batches: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._deferred: list[_Job] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction; returns its result once the commit is on the disk, raises what it raised."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._send([*self._take_deferred(), _Job(work, future)])
        return await future

    def later(self, work: Work) -> None:
        """Run `work` before any later write, without waiting for it."""
        self._deferred.append(_Job(work, None))
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(DEFERRED_FLUSH_SECONDS, self._flush)

    def close(self) -> None:
        """Finish what was asked for; afterwards nothing is written any more."""
        self._flush()
        self._batches.put(None)
        self._thread.join()

    def _flush(self) -> None:
        if jobs := self._take_deferred():
            self._send(jobs)

    def _take_deferred(self) -> list[_Job]:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        jobs, self._deferred = self._deferred, []
        return jobs

    def _send(self, jobs: list[_Job]) -> None:
        self._batches.put(jobs)

    def _run(self) -> None:
        try:
            self._write_batches()
        except BaseException:  # noqa: BLE001 - see below
            # A full disk, a damaged file: an oracle that cannot write must not go on answering, nor hang.
            traceback.print_exc(file=sys.stderr)
            os._exit(os.EX_IOERR)

    def _write_batches(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        # WAL with FULL syncs the log at every commit: an answered request survives SIGKILL and power loss.
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(self._schema)
        going = True
        while going:
            jobs, going = self._next_batch()
            if jobs:
                self._commit(connection, jobs)
        connection.close()

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """Everything that is waiting now, and whether to go on after it."""
        jobs: list[_Job] = []
        batch = self._batches.get()
        while batch is not None:
            jobs.extend(batch)
            try:
                batch = self._batches.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.run(connection)
        connection.execute("COMMIT")
        self._loop.call_soon_threadsafe(_resolve_all, jobs)


def _resolve_all(jobs: list[_Job]) -> None:
    for job in jobs:
        job.resolve()
