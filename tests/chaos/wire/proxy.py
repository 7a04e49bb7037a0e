"""A TCP proxy that breaks one chunk: the n-th one of a direction is lost, torn, held, or cut off right after it arrived.

A chunk is what one read brought. It is named by what it says, for an answer by what it answers: its number moves by one
or two between runs. Runs on a thread of its own; a test arms it and reads what passed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

from tests.chaos.points.labels import head

CHUNK_BYTES = 65_536
# So long may a server take to carry out what it was told before its connection is cut behind the answer.
CARRY_OUT_SECONDS = 1.0
DRIPS = 16
PREPARE = "prepare"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of nothing: close sends RST


class Way(StrEnum):
    """Direction of a chunk, as the client sees it."""

    UP = "up"
    DOWN = "down"


class Fault(StrEnum):
    """What happens to the chunk."""

    LOST = "lost"
    DONE = "done"
    """It arrives, then the connection is reset: done, yet reported failed."""
    TORN = "torn"
    HELD = "held"
    """It arrives late, whether the client still waits or not."""
    SLOW = "slow"
    PARTED = "parted"
    """Nothing passes on the whole link for a while."""


@dataclass(frozen=True)
class Point:
    """Where a link breaks: at the n-th chunk (0: nowhere), or at the first one of that label; `share` is what tears."""

    way: Way
    n: int
    fault: Fault
    seconds: float = 0.0
    share: float = 0.5
    label: str = ""


@dataclass
class Watch:
    """What passed since a point was armed. Written by the proxy's thread alone."""

    point: Point
    seen: dict[Way, list[str]] = field(default_factory=lambda: {way: [] for way in Way})
    fired: str = ""
    over: bool = False
    """The fault is through: the link does again what a link should."""

    def hits(self, way: Way, label: str) -> bool:
        self.seen[way].append(label)
        point = self.point
        hit = label == point.label if point.label else len(self.seen[way]) == point.n
        if self.fired or way != point.way or not hit:
            return False
        self.fired = label
        return True


@dataclass
class _Pair:
    """A client's connection and ours to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    said: str = "connect"
    prepared: dict[bytes, str] = field(default_factory=dict)
    """Postgres statements by name: who binds one does not say what it is."""
    cut: bool = False


class Link:
    """Listens on a port of its own and goes to `target`; `spoke_at` is when the last chunk came."""

    def __init__(self, name: str, peer: str, target: tuple[str, int]) -> None:
        self.name = name
        self.spoke_at = 0.0
        self.port = 0
        self.watch = Watch(Point(Way.UP, 0, Fault.LOST))
        self._peer = peer
        self._target = target
        self._loop: asyncio.AbstractEventLoop
        self._pairs: list[_Pair] = []
        self._open = asyncio.Event()
        self._open.set()

    def arm(self, point: Point) -> Watch:
        """From here on the chunks are counted anew."""
        self.watch = Watch(point)
        return self.watch

    def hang_up(self) -> None:
        """Reset every connection there is, so that what comes next comes on new ones."""

        async def all_of_them() -> None:
            for pair in self._pairs:
                pair.cut = True
                _reset(pair.client)
                _reset(pair.server)

        asyncio.run_coroutine_threadsafe(all_of_them(), self._loop).result(10)

    async def listen(self) -> asyncio.Server:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        return server

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        await self._open.wait()
        try:
            from_server, server = await asyncio.open_connection(*self._target)
        except OSError:
            return _reset(client)
        pair = _Pair(client, server)
        self._pairs.append(pair)
        await asyncio.gather(
            self._pump(Way.UP, from_client, server, pair), self._pump(Way.DOWN, from_server, client, pair)
        )
        self._pairs.remove(pair)
        for end in (client, server):
            end.close()
        return None

    async def _pump(self, way: Way, source: asyncio.StreamReader, to: asyncio.StreamWriter, pair: _Pair) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if pair.cut:  # the answer to what was carried out: nobody is there to hear it
                    return _reset(pair.server)
                self.spoke_at = monotonic()
                label = self._label(way, data, pair)
                watch = self.watch
                if watch.hits(way, label):
                    try:
                        await self._break(watch.point, data, to, pair)
                    finally:
                        watch.over = True
                    continue
                await self._open.wait()
                to.write(data)
                await to.drain()
        with suppress(OSError, RuntimeError):
            to.write_eof()
        return None

    def _label(self, way: Way, data: bytes, pair: _Pair) -> str:
        if way is Way.UP:
            pair.said = _statement(data, pair.prepared) if self._peer == "postgres" else head(data, self._peer)
            return pair.said
        return f"after {pair.said}"

    async def _break(self, point: Point, data: bytes, to: asyncio.StreamWriter, pair: _Pair) -> None:
        if point.fault is Fault.PARTED:
            self._open.clear()
            await asyncio.sleep(point.seconds)
            self._open.set()
        elif point.fault is Fault.HELD:
            await asyncio.sleep(point.seconds)
        elif point.fault is Fault.SLOW:
            size = -(-len(data) // DRIPS)
            for start in range(0, len(data), size):
                to.write(data[start : start + size])
                await asyncio.sleep(point.seconds / DRIPS)
            return
        if point.fault is Fault.TORN:
            data = data[: int(len(data) * point.share)]
        if point.fault is not Fault.LOST:
            to.write(data)
            await to.drain()
        if point.fault in (Fault.LOST, Fault.TORN, Fault.DONE):
            self._cut(point, pair)

    @staticmethod
    def _cut(point: Point, pair: _Pair) -> None:
        """Reset both ends; one that has been told something first carries it out."""
        pair.cut = True
        _reset(pair.client)
        if point.fault is Fault.DONE and point.way is Way.UP:
            asyncio.get_running_loop().call_later(CARRY_OUT_SECONDS, _reset, pair.server)
        else:
            _reset(pair.server)


def _statement(data: bytes, prepared: dict[bytes, str]) -> str:
    """What a statement says, whether it is sent or was prepared before.

    PostgreSQL documentation, "Message Formats": Q, length, query; P, length, name, query; B, length, portal, name.
    """
    kind, words = data[:1], data[5:].split(b"\0", 2)
    if kind == b"Q":
        return _said(words[0])
    if kind == b"P" and len(words) > 1:
        prepared[words[0]] = _said(words[1])
        alone = b"B" not in data[1 + int.from_bytes(data[1:5]) :][:1]  # psycopg prepares what it has said five times
        return f"{PREPARE} {prepared[words[0]]}" if alone else prepared[words[0]]
    if kind == b"B" and len(words) > 1 and words[1] in prepared:
        return prepared[words[1]]
    return head(data, "postgres")


def _said(query: bytes) -> str:
    return head(b"Q    " + query, "postgres").removeprefix("Q ")


def _reset(end: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()


@contextmanager
def proxied(links: list[Link]) -> Iterator[None]:
    """The links, listening; gone at the end with every connection."""
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        servers = [await link.listen() for link in links]
        ready.set()
        await stop.wait()
        for server in servers:
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), name="proxy", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
