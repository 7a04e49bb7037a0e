"""A wire to Postgres that is listened to: which statements have passed, in order, prepared ones too."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

from tests.flow.doors import Wire

_TYPED = 196_608  # the start-up message of protocol 3.0; before it messages have no type byte


class Overheard(Wire):
    """`heard` is all that was asked since it was emptied."""

    def __init__(self, url: str) -> None:
        self.heard: list[str] = []
        super().__init__(url)

    def of(self, ask: Callable[[], object]) -> list[str]:
        """The statements that one request makes, from a process that answers one at a time."""
        self.heard.clear()
        ask()
        return list(self.heard)

    def _forward(self, near: socket.socket, far: socket.socket) -> None:  # type: ignore[override]
        other, talk = {near: far, far: near}, Talk()
        with near, far, suppress(OSError, ValueError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if end is near:
                        # Before it goes on: who has the answer to a request has all of its statements here.
                        self.heard.extend(talk.heard(data))
                    other[end].sendall(data)


class Talk:
    """What one client says (PostgreSQL documentation, "Message Formats")."""

    def __init__(self) -> None:
        self._rest = b""
        self._typed = False
        self._prepared: dict[bytes, str] = {}

    def heard(self, data: bytes) -> Iterator[str]:
        self._rest += data
        while (message := self._next()) is not None:
            kind, words = message[:1], message[5:].split(b"\0", 2)
            if kind == b"Q":
                yield words[0].decode()
            elif kind == b"P":
                self._prepared[words[0]] = words[1].decode()
            elif kind == b"B":
                yield self._prepared[words[1]]

    def _next(self) -> bytes | None:
        at = 1 if self._typed else 0
        if len(self._rest) < at + 4:
            return None
        length = at + int.from_bytes(self._rest[at : at + 4])
        if len(self._rest) < length:
            return None
        message, self._rest = self._rest[:length], self._rest[length:]
        if not self._typed:
            self._typed = int.from_bytes(message[4:8]) == _TYPED
            return b" "
        return message
