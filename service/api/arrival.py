"""Around each request: an id that follows it into the effect, its trace context, one log line, never a traceback.

Plain ASGI, so that what is bound here is seen by the endpoint's thread and by `accept`.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import structlog
from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.headers import request_id
from service.api.problems import Problem, answer
from service.telemetry.context import bound

_FRAMES_MAX = 12
PROBES = ("/livez", "/readyz")
"""Asked every few seconds by whoever runs us; their lines would drown the others."""

log = structlog.get_logger(__name__)


class Arrival:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = name
        # The caller's trace (W3C Trace Context) is the current one from here on; `accept` stores it with the effect.
        trace = {field: headers[field] for field in ("traceparent", "tracestate") if field in headers}
        with bound({**trace, "request_id": name}):
            await self._through(scope, receive, send, name)

    async def _through(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        began = perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = MutableHeaders(scope=message)
                added["X-Request-Id"] = name
                added["X-Content-Type-Options"] = "nosniff"
                added.setdefault("Cache-Control", "no-store")
                for field, value in scope["state"].get("rate_headers", {}).items():
                    added[field] = value
            try:
                await send(message)
            except LocalProtocolError:
                # The server has answered already: what followed the head was no HTTP, a chunk without a length, say.
                log.debug("answer_dropped")

        try:
            await self._app(scope, receive, note)
        except Exception as error:  # noqa: BLE001 - the last handler: nothing may reach the caller or the server raw
            # Names and lines only: the message of an exception may hold what the caller sent.
            log.error("request_bug", error_type=type(error).__name__, stack=frames(error))  # noqa: TRY400
            if not status:
                bug = Problem("internal_error", "the request met a bug; quote the request id")
                await answer(bug, request_id=name)(scope, receive, note)
        finally:
            line = _line(scope, status, perf_counter() - began)
            (log.debug if line["path"] in PROBES else log.info)("request", **line)


def frames(error: BaseException) -> list[str]:
    """Where an exception came from, innermost last, without any value."""
    stack = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    return [f"{frame.name}:{frame.lineno}" for frame in stack]


def _line(scope: Scope, status: int, seconds: float) -> Mapping[str, Any]:
    """The route instead of the path: a path holds what the caller typed."""
    route = getattr(scope.get("route"), "path", None)
    return {"method": scope["method"], "path": route, "status": status, "duration_ms": round(1000 * seconds, 1)}
