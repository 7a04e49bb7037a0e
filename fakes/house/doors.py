"""The listening ports of a fake, which can be shut: a connection is then refused, and later taken again.

A refused connection is the one failure that proves that nothing was sent. While a door is shut, idle connections are
closed too, as by a process that is gone; requests that are inside already are answered.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from fakes.house.faults import Fault

HOST = "127.0.0.1"
LISTEN_BACKLOG = 1024


class Door(Protocol):
    """A port that can stop listening and start again on the same number."""

    def shut(self) -> None:
        """Stop listening, and drop connections that are idle."""

    async def open(self) -> None:
        """Listen again."""


class Doors:
    """All front doors of one fake, by name; the back door is never shut."""

    def __init__(self) -> None:
        self._doors: dict[str, Door] = {}
        self._shut: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, door: Door) -> None:
        """A door that faults may shut."""
        self._doors[name] = door
        self._shut[name] = 0

    def refuse(self, fault: Fault) -> None:
        """Shut the door that the fault's route names, or all, for its `seconds` or until it is released."""
        names = [fault.route] if fault.route in self._doors else list(self._doors)
        for name in names:
            self._shut[name] += 1
            self._doors[name].shut()
        task = asyncio.create_task(self._reopen(names, fault))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reopen(self, names: list[str], fault: Fault) -> None:
        await fault.hold()
        for name in names:
            self._shut[name] -= 1
            if not self._shut[name]:
                await self._doors[name].open()


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
