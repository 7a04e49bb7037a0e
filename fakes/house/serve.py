"""One fake as a process: loopback only, ready when it says so in one line of JSON, gone at once when told to stop.

Stopping has nothing to save: whatever was answered is on the disk already. So SIGTERM writes out what is queued and
leaves, without waiting for requests that are held at a barrier or hang on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fakes.house import profiles, repairs, request_log
from fakes.house.admin import Admin
from fakes.house.clock import Clock, stored_offset
from fakes.house.dialect import Arrival, Dialect
from fakes.house.doors import Doors, listen, port_of
from fakes.house.faults import Plan
from fakes.house.idempotency import settle_orphans
from fakes.house.pipeline import Pipeline, Surroundings
from fakes.house.profiles import Habits, KeyBook
from fakes.house.storage import Storage
from fakes.house.wire import ExposingProtocol
from fakes.stripe import webhooks

# Longer than any pause between two calls of a worker, so that a fake never closes a connection under a request.
KEEP_ALIVE_SECONDS = 300


class House:
    """What the doors of one fake share: storage, clock, fault plan, key habits.

    With `events` it is a provider that tells what happened: through webhooks, and after repairs.
    """

    def __init__(self, name: str, state: Path, schema: str, habits: Habits, *, events: bool = False) -> None:
        self.name = name
        self.storage = Storage(
            state / f"{name}.sqlite3",
            schema + profiles.SCHEMA + (webhooks.SCHEMA + repairs.SCHEMA if events else ""),
        )
        self.plan = Plan(repairs=events)
        self.clock = Clock()
        self.doors = Doors()
        self.keys = KeyBook(habits.mutant)
        self.habits = habits
        self.numbers: Iterator[int] = itertools.count(1)
        self._events = events
        self._running: list[object] = []  # held: asyncio keeps only weak references to tasks

    async def open(self) -> None:
        """Pick up where an earlier life stopped, however it ended."""
        self.clock.offset_seconds = await self.storage.write(stored_offset)
        self.numbers = itertools.count(await self.storage.write(request_log.next_seq))
        await self.storage.write(self.keys.load)
        chosen = {"profile": self.habits.profile, "orphans": self.habits.orphans}
        wish = {name: value for name, value in chosen.items() if value}
        await self.storage.write(lambda db: self.keys.change(db, wish))

    async def start_api(self, dialect: Dialect, sock: socket.socket) -> None:
        """Serve the HTTP API of a provider, after deciding what became of requests that were in flight."""
        lost = dialect.refusal("server_error", _NOBODY) if self.keys.orphans == "stored_500" else None
        await self.storage.write(lambda db: settle_orphans(db, lost))
        mender = repairs.Repairs(self.storage, self.clock, dialect.routes) if self._events else repairs.Nothing()
        around = Surroundings(
            self.storage,
            self.plan,
            self.clock,
            self.doors,
            self.keys,
            mender,
            self.numbers,
            self.habits.latency_seconds,
        )
        app = Starlette()
        # Every method, known or not: the pipeline answers for unknown routes in its own order.
        app.router.default = _as_app(Pipeline(dialect, around))
        door = HttpDoor(app, sock)
        await door.start()
        self.doors.add("http", door)
        self._running += [door, asyncio.create_task(mender.run())]

    async def start_admin(self, extra: Sequence[Route], sock: socket.socket) -> None:
        """Serve the back door: the shared endpoints, and those that only this fake has."""
        admin = Admin(self.name, self.storage, self.plan, self.clock, doors=self.doors, keys=self.keys)
        if self._events:
            sender = webhooks.Sender(self.storage, self.clock)
            extra = [*extra, *await sender.start()]
        door = HttpDoor(admin.app(extra), sock)
        await door.start()
        self._running.append(door)


# Whoever is told what became of a request that nobody remembers.
_NOBODY = Arrival(seq=0, request_id="", method="POST", path="", headers={}, query="", body=b"", key=None, at=0.0)


def _as_app(pipeline: Pipeline) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await pipeline.handle(Request(scope, receive))
        except ClientDisconnect:
            # The client died inside its own request: it never became one.
            return
        await response(scope, receive, send)

    return app


class _Server(uvicorn.Server):
    """A uvicorn that leaves the signals to us: several of them share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpDoor:
    """One HTTP application on one port."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=ExposingProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self._server = _Server(config)
        self._sock = sock
        self._port = port_of(sock)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when connections are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._sock]))
        while not self._server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
            await asyncio.sleep(0.005)

    def shut(self) -> None:
        """Refuse connections from now on."""
        for listening in self._server.servers:
            listening.close()
        self._sock.close()
        for connection in list(self._server.server_state.connections):
            connection.shutdown()

    async def open(self) -> None:
        """Listen again, on the same port."""
        self._sock = listen(self._port)
        await self._server.startup(sockets=[self._sock])


async def run_until_stopped(storage: Storage, state: Path, address: dict[str, Any]) -> None:
    """Announce the fake, wait for SIGTERM or SIGINT, then end the process with 0."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # Only now: whoever reads the address may stop us in the next instant.
    _announce(state, address)
    await stopped.wait()
    storage.close()
    os._exit(0)  # requests held on purpose would keep a graceful server waiting


def _announce(state: Path, address: dict[str, Any]) -> None:
    """Tell the world: one line on stdout, and a file that is never half written."""
    line = json.dumps({**address, "pid": os.getpid()})
    unfinished = state / "address.json.new"
    unfinished.write_text(line + "\n")
    unfinished.replace(state / "address.json")
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
