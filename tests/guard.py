"""The network guard: a test that connects, sends or listens beyond this machine fails with a sentence.

One door is open to who asks for it: with a test key in COUNTERFOIL_TEST_STRIPE_KEY, Stripe's sandbox (port 443).

An audit hook, not a patched socket: it also sees what libraries do below Python's own `socket` class, and nothing in
a test run can forget to go through it. It cannot be removed again, and need not be.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from functools import cache
from typing import Any

SANDBOX_KEY = "COUNTERFOIL_TEST_STRIPE_KEY"
HTTPS_PORT = 443
_WATCHED = frozenset({"socket.connect", "socket.bind", "socket.sendto"})


@cache
def refuse_the_network() -> None:
    """From here on this process talks to loopback addresses and Unix sockets only."""
    sys.addaudithook(_check)


def is_here(address: object) -> bool:
    """Whether a socket address stays on this machine: loopback, a Unix socket, or none at all."""
    if not isinstance(address, tuple) or not address:
        return True  # AF_UNIX, AF_NETLINK
    host = address[0]
    if not isinstance(host, str):
        return True
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WATCHED and not is_here(arguments[1]) and not _is_sandbox(event, arguments[1]):
        raise PermissionError(f"a test may not leave this machine: {event} {arguments[1]!r}")


def _is_sandbox(event: str, address: Any) -> bool:
    return event == "socket.connect" and bool(os.environ.get(SANDBOX_KEY)) and address[1] == HTTPS_PORT
