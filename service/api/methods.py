"""HEAD is GET without its body, OPTIONS lists the methods, and a method that is not offered is told which are.

(RFC 9110 §9.3.2, §9.3.7, §15.5.6.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from fastapi import FastAPI

_OFFERED = ("GET", "POST")


class Methods:
    """A layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and (allowed := allow(scope["app"], scope)):
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # The server knows that it was HEAD and sends no body; the length it would have stays.
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def allow(app: FastAPI, scope: Scope) -> str:
    """The methods of this path for the header Allow, empty when nothing is there."""
    offered = [method for method in _OFFERED if _answers(app, {**scope, "method": method})]
    if "GET" in offered:
        offered.insert(1, "HEAD")
    return ", ".join([*offered, "OPTIONS"]) if offered else ""


def _answers(app: FastAPI, scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)
