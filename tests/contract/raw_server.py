"""A server on a raw socket that answers each request with exactly the bytes a test hands it, and counts."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Script = Callable[[socket.socket, "RawServer"], None]


class RawServer:
    """Reads whole requests and lets the script answer; `requests` and `connections` are what it saw."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        self._script = script
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                conn, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with suppress(OSError):
            if self._tls:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn:
                while request := read_request(conn):
                    self.requests.append(request)
                    self._script(conn, self)

    def close(self) -> None:
        self.closing.set()
        # Closing alone does not wake a blocked accept.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def read_request(conn: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := conn.recv(65536)):
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(v) for k, _, v in (x.partition(b":") for x in head.split(b"\r\n")) if k == b"Content-Length"), 0)
    while len(body) < length:
        if not (part := conn.recv(65536)):
            return b""
        body += part
    return head + b"\r\n\r\n" + body


@contextmanager
def raw(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(script, tls)
    try:
        yield server
    finally:
        server.close()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def says(data: bytes, *, close: bool = False, reset: bool = False) -> Script:
    """Send these bytes, then keep the connection, close it or reset it."""

    def script(conn: socket.socket, _server: RawServer) -> None:
        if data:
            conn.sendall(data)
        if reset:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        if reset or close:
            if not reset:
                conn.shutdown(socket.SHUT_RDWR)
            conn.close()

    return script


def drips(data: bytes) -> Script:
    """A byte every 50 ms, for as long as somebody listens."""

    def script(conn: socket.socket, server: RawServer) -> None:
        for i in range(len(data)):
            conn.sendall(data[i : i + 1])
            if server.closing.wait(0.05):
                return

    return script
