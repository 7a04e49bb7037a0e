"""Every byte that goes to the broker while something else is done, as the broker itself repeats it (`MONITOR`)."""

from __future__ import annotations

import base64
import binascii
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def overheard(url: str) -> Iterator[bytearray]:
    """What all clients of the Valkey at `url` say meanwhile; whole when the block has ended."""
    at = urlsplit(url)
    heard = bytearray()
    with socket.create_connection((at.hostname, at.port or 6379), timeout=20) as line:
        if at.password:
            line.sendall(f"AUTH {at.username or 'default'} {at.password}\r\n".encode())
            assert line.recv(64).startswith(b"+OK")
        line.sendall(b"MONITOR\r\n")
        assert line.recv(5) == b"+OK\r\n"
        line.settimeout(None)
        listener = threading.Thread(target=_listen, args=(line, heard), daemon=True)
        listener.start()
        try:
            yield heard
        finally:
            line.sendall(b"QUIT\r\n")
            listener.join(20)


def _listen(line: socket.socket, heard: bytearray) -> None:
    with suppress(ConnectionError):
        while part := line.recv(65536):
            heard += part


def spelled_out(heard: bytearray) -> str:
    """All of it as text, and once more what is base64 in it: kombu writes bodies so."""
    decoded = []
    for run in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", heard):
        with suppress(binascii.Error):
            decoded.append(base64.b64decode(run))
    return b"\n".join([bytes(heard), *decoded]).decode(errors="replace")
