"""Answers with bad manners: cut off, torn in the middle, dripped, or not the answer at all.

ASGI has no word for "drop the connection without an answer". So the protocol class below hands each request its
transport through the scope's `extensions`, which ASGI reserves for such things, and an answer can abort it.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import Mapping
from typing import Any, cast

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fakes.house.faults import Fault

_EXTENSION = "fakes.transport"
DRIP_BYTES_MAX = 10
DRIPS_MIN = 40  # a short answer drips for seconds as well
DRIP_PAUSE_SECONDS = 0.05


class ExposingProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with the connection's transport in reach of the application."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the parent
        """Hand the transport to every request of this connection."""
        super().connection_made(transport)
        self.app = cast("Any", functools.partial(_with_transport, self.app, transport))


async def _with_transport(
    app: ASGIApp, transport: asyncio.Transport, scope: Scope, receive: Receive, send: Send
) -> None:
    scope.setdefault("extensions", {})[_EXTENSION] = transport
    await app(scope, receive, send)


def _transport(scope: Scope) -> asyncio.Transport:
    return cast("asyncio.Transport", scope["extensions"][_EXTENSION])


def linger_no_more(transport: asyncio.Transport) -> None:
    """Make the coming close a reset: RST instead of FIN."""
    raw = cast("socket.socket", transport.get_extra_info("socket"))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _until_gone(receive: Receive) -> None:
    """Return once uvicorn has noticed that the connection is gone, so that it expects no answer from us."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Cut(Response):
    """No answer: the connection is reset (RST, not FIN, as when a machine dies or a firewall forgets)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        """Reset the connection."""
        transport = _transport(scope)
        linger_no_more(transport)
        transport.abort()
        await _until_gone(receive)


class Closed(Response):
    """No answer: the connection is closed in order (FIN), as by a server that was stopped."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        """Close the connection."""
        _transport(scope).close()
        await _until_gone(receive)


class Truncated(Response):
    """The status, all headers with the full length, and half of the body; then the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half, then close."""
        await _start(self, send)
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        _transport(scope).close()
        await _until_gone(receive)


class TruncatedChunked(Truncated):
    """The same without a length: chunks, the last of which never comes."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Leave the length out, so that the server sends chunks."""
        super().init_headers(headers)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]


class Dripped(Response):
    """The whole answer, a few bytes at a time: each read is quick, and all of them together take for ever."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - Response's own signature
        """Send all of it, slowly."""
        await _start(self, send)
        body = bytes(self.body)
        size = max(1, min(DRIP_BYTES_MAX, len(body) // DRIPS_MIN))
        for start in range(0, len(body), size):
            await send({"type": "http.response.body", "body": body[start : start + size], "more_body": True})
            await asyncio.sleep(DRIP_PAUSE_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(response: Response, send: Send) -> None:
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})


class Page(Response):
    """What a proxy says instead of the provider."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(f"<html><body><h1>{title}</h1></body></html>", status, media_type="text/html")


_BODIES = {"truncate": Truncated, "truncate_chunked": TruncatedChunked, "drip": Dripped}


def instead(fault: Fault | None) -> Response | None:
    """What a request hears that goes no further than the wire, if it is such a one."""
    match fault and (fault.action, fault.when):
        case ("close_before" | "refuse", _) | ("reset", "before"):
            return Cut()
        case ("close", "before"):
            return Closed()
        case ("status_502_html", _):
            return Page(502, "502 Bad Gateway")
    return None


def mangled(fault: Fault | None, content: bytes, status: int, headers: Mapping[str, str]) -> Response:
    """The answer to an effect that is done and kept, as it reaches the caller."""
    match fault.action if fault else None:
        case "close_after" | "reset":
            return Cut()
        case "close":
            return Closed()
        case "empty_200":
            return Response(b"", 200, media_type="application/json")
        case "html_200":
            return Page(200, "Welcome")
        case action:
            kind = _BODIES.get(action or "", Response)
            return kind(content, status, dict(headers), "application/json")
