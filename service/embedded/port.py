"""A loopback port that stays the same from one start to the next, as long as nobody else took it.

Ports come from below the range the kernel hands to outgoing connections (32768 and up on Linux, 49152 on macOS).
Inside that range two things happen to a server that is down for a moment: another program's outgoing connection
takes its port, or a client that keeps trying to reconnect to it is given that very port as its own and connects
to itself (TCP simultaneous open), which keeps the server out for good.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

from service.core.errors import SetupError
from service.embedded.address import write_private

LOOPBACK = "127.0.0.1"
_LOWEST = 20000
_HIGHEST = 31999
_TRIES = 200


def settle(file: Path, *, avoid: int | None = None) -> int:
    """The port remembered in `file` if it is free, else another one, remembered from now on."""
    remembered = _remembered(file)
    if remembered is not None and remembered != avoid and is_free(remembered):
        return remembered
    dice = random.SystemRandom()
    for _ in range(_TRIES):
        port = dice.randint(_LOWEST, _HIGHEST)
        if is_free(port):
            write_private(file, f"{port}\n")
            return port
    raise SetupError(f"no free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK}: stop what listens there")


def is_free(port: int) -> bool:
    """True if a server could listen there now; connections in TIME_WAIT do not count, servers ignore them too."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _remembered(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
