"""One fake as a process: loopback only, ready when it says so in one line of JSON, gone at once when told to stop.

Stopping has nothing to save: whatever was answered is on the disk already. So SIGTERM writes out what is queued and
leaves, without waiting for requests that are held at a barrier or hang on purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fakes import request_log
from fakes.admin import Admin
from fakes.clock import Clock, stored_offset
from fakes.faults import Plan
from fakes.idempotency import release_orphans
from fakes.pipeline import Dialect, Pipeline
from fakes.storage import Storage
from fakes.wire import ExposingProtocol

HOST = "127.0.0.1"
# Longer than any pause between two calls of a worker, so that a fake never closes a connection under a request.
KEEP_ALIVE_SECONDS = 300
LISTEN_BACKLOG = 1024


class House:
    """What the doors of one fake share: storage, clock, fault plan."""

    def __init__(self, name: str, state: Path, schema: str) -> None:
        self.name = name
        self.state = state
        self.storage = Storage(state / f"{name}.sqlite3", schema)
        self.plan = Plan()
        self.clock = Clock()
        self._first_seq = 1

    async def open(self) -> None:
        """Pick up where an earlier life stopped, however it ended."""
        self.clock.offset_seconds = await self.storage.write(stored_offset)
        await self.storage.write(release_orphans)
        self._first_seq = await self.storage.write(request_log.next_seq)

    def front_door(self, dialect: Dialect, latency_seconds: float) -> Starlette:
        """The HTTP API of a provider."""
        pipeline = Pipeline(
            dialect,
            self.storage,
            self.plan,
            self.clock,
            first_seq=self._first_seq,
            latency_seconds=latency_seconds,
        )
        app = Starlette()
        # Every method, known or not: the pipeline answers for unknown routes in its own order.
        app.router.default = _as_app(pipeline)
        return app

    def admin(self) -> Admin:
        """The back door's shared endpoints."""
        return Admin(self.name, self.storage, self.plan, self.clock)


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


def listen(port: int) -> socket.socket:
    """A loopback socket; `port` 0 takes a free one, a given one is free again right after a crash."""
    # asyncio switches Nagle off only where the protocol is named; with it on, an answer waits 40 ms for an ACK.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    sock.listen(LISTEN_BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 - the library's signature
    return sock


def port_of(sock: socket.socket) -> int:
    """The port a listening socket got."""
    return int(sock.getsockname()[1])


async def start_http(app: ASGIApp, sock: socket.socket) -> asyncio.Task[None]:
    """Serve `app` on `sock`; returns when connections are answered."""
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
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.005)
    return task


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
