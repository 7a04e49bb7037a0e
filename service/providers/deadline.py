"""A call ends when its deadline says so, whatever the other side does: each wait on the socket gets only what is left.

A socket's own timeout counts per read, so a server that drips one byte a second holds such a call for ever and with
it the lease (W7). Works on plain, TLS and gevent sockets, because it uses `settimeout` and nothing below it.
Name resolution is the one wait that cannot be cut short; it happens before anything is sent.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Deadline:
    """A point on the monotonic clock; `left()` is what remains and raises TimeoutError when nothing does."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end, always positive. Raises TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline of this call has passed")
        return left

    def reset(self, seconds: float) -> None:
        """Start again from now: another phase of the same call has another limit."""
        self._end = time.monotonic() + seconds


class DeadlineReader(io.RawIOBase):
    """What the socket receives, as a raw stream; closing it leaves the socket open."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        """Yes: it is a stream to read from."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Receive what has come, waiting until the deadline at most. Raises TimeoutError."""
        self._sock.settimeout(self._deadline.left())
        return self._sock.recv_into(buffer)


def send_all(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    """Send everything before the deadline; a receiver that does not read cannot hold the call either."""
    sock.settimeout(deadline.left())
    sent = sock.send(data)
    while sent < len(data):
        sock.settimeout(deadline.left())
        sent += sock.send(data[sent:])


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Open a TCP connection; all addresses of the host together get the time that is left. Raises OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left())
            sock.connect(address)
            # Requests leave in one segment and wait for the answer: Nagle's delay could only hurt.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            close(sock)
            failure = error
        except BaseException:
            close(sock)
            raise
        else:
            return sock
    raise failure or OSError(f"no address for {host}")


def close(sock: socket.socket) -> None:
    """Close without a word to the peer: a forked child must not end its parent's TLS session."""
    with suppress(OSError):
        sock.close()
