"""One HTTP/1.1 client for every provider: it says how far a request got, and ends by its deadline.

    NotSent    provably no byte of the request left: DNS, refused, connect timeout, TLS, no time left
    NoAnswer   bytes were handed to the socket and no whole answer came back: the request may have been carried out
    Answer     a complete answer, whatever its status

`before_send` runs when the connection is open, right before the first byte; what it raises passes through untouched
and nothing is sent. No redirects (a POST that becomes a GET is not our request), no proxies from the environment, no
retries. Connections are kept per process: a forked child opens its own, since two processes on one
connection read each other's answers.
"""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from service.providers.deadline import Deadline, DeadlineReader, close, connect, send_all
from service.providers.http1 import Answer, NotHttp, Torn, read_answer

CONNECT_SECONDS = 5.0  # a healthy provider is reached in milliseconds; the time is better spent on the answer
IDLE_SECONDS = 5.0  # below the keep-alive of common servers and balancers, so that a request seldom meets a closing one
IDLE_CONNECTIONS_MAX = 64  # above the slots of a worker process; the rest is closed


class NotSent(Exception):
    """No byte of the request left this process; `reason` is one word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoAnswer(Exception):
    """The request may have been carried out (W7, W8); `reason` is one word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Idle:
    """The kept connections of one process, newest last."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.kept: deque[tuple[float, socket.socket]] = deque()


class Wire:
    """Talks to one origin (`http://host:port` or `https://host`). Safe to call from threads and greenlets."""

    def __init__(self, origin: str, *, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{parts.scheme!r} with host {parts.hostname!r} is no http or https origin")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._netloc = parts.netloc.rpartition("@")[2]
        self._tls = tls
        self._idle = _Idle()

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float,
        before_send: Callable[[], None],
    ) -> Answer:
        """Send once and return the whole answer, all within `seconds`. Raises NotSent or NoAnswer."""
        data = self._encode(method, target, headers, body)
        deadline = Deadline(seconds)
        sock = self._kept() or self._open(deadline)
        try:
            before_send()
            try:
                deadline.left()
            except TimeoutError:
                raise NotSent("no_time_left") from None
            answer = _exchange(sock, data, deadline)
        except BaseException:  # also a greenlet's kill: what is half read must never serve another request
            close(sock)
            raise
        if answer.reusable:
            self._keep(sock)
        else:
            close(sock)
        return answer

    def _encode(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._netloc}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header holds a line break")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def _open(self, deadline: Deadline) -> socket.socket:
        try:
            opening = Deadline(min(CONNECT_SECONDS, deadline.left()))
            sock = connect(self._host, self._port, opening)
            if not self._secure:
                return sock
            try:
                sock.settimeout(opening.left())
                return self._context().wrap_socket(sock, server_hostname=self._host)
            except BaseException:
                close(sock)
                raise
        except OSError as error:  # ssl.SSLError and socket.gaierror are OSErrors
            raise NotSent(_word(error)) from error

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _pool(self) -> _Idle:
        if self._idle.pid != os.getpid():
            # After a fork the connections are the parent's. Its lock may be held for ever here, so all of it goes.
            self._idle = _Idle()
        return self._idle

    def _kept(self) -> socket.socket | None:
        """A kept connection that nobody closed, or None."""
        pool = self._pool()
        while True:
            with pool.lock:
                if not pool.kept:
                    return None
                since, sock = pool.kept.pop()
            if time.monotonic() - since < IDLE_SECONDS and not _readable(sock):
                return sock
            close(sock)

    def _keep(self, sock: socket.socket) -> None:
        pool = self._pool()
        now = time.monotonic()
        stale = []
        with pool.lock:
            pool.kept.append((now, sock))
            while len(pool.kept) > IDLE_CONNECTIONS_MAX or now - pool.kept[0][0] >= IDLE_SECONDS:
                stale.append(pool.kept.popleft()[1])
        for old in stale:
            close(old)


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: its end, or bytes nobody asked for. Either way it is done."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _exchange(sock: socket.socket, data: bytes, deadline: Deadline) -> Answer:
    """From the first byte on every failure is NoAnswer: who can say how much the other side read."""
    try:
        send_all(sock, data, deadline)
        return read_answer(io.BufferedReader(DeadlineReader(sock, deadline)))
    except Exception as error:
        raise NoAnswer(_word(error)) from error


def _word(error: Exception) -> str:
    """The failure as one stable word for the journal; never a host, an address or a byte of the answer."""
    words: tuple[tuple[type[Exception], str], ...] = (
        (TimeoutError, "timeout"),
        (ConnectionRefusedError, "refused"),
        (socket.gaierror, "dns"),
        (ssl.SSLError, "tls"),
        (ConnectionResetError, "reset"),
        (BrokenPipeError, "reset"),
        (Torn, "torn"),
        (NotHttp, "not_http"),
        (OSError, "network"),
    )
    return next((word for kind, word in words if isinstance(error, kind)), "unreadable")
