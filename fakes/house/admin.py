"""The back door of every fake, on a port of its own: health, faults, clock, barriers, and what it really did.

GET  /_fake/health                      ready, with the addresses
GET  /_fake/requests?key=…              every request seen, and its answer
GET|POST|DELETE /_fake/faults           the plan with its hits; add a rule; forget all
POST /_fake/release {"id": n}           let go of requests held at a barrier (all without an id)
GET|POST /_fake/clock {"advance_seconds": n}
GET|POST /_fake/keys {"profile", "orphans"}  the key habits in force (`profiles`), and the mutant
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes.house import request_log
from fakes.house.clock import Clock
from fakes.house.doors import Doors
from fakes.house.faults import BadFault, Plan
from fakes.house.profiles import BadHabit, KeyBook
from fakes.house.storage import Storage

Endpoint = Callable[[Request], Awaitable[Response]]


class Admin:
    """The endpoints that Stripe and mail share."""

    def __init__(self, name: str, storage: Storage, plan: Plan, clock: Clock, *, doors: Doors, keys: KeyBook) -> None:
        self._name = name
        self._storage = storage
        self._plan = plan
        self._clock = clock
        self._doors = doors
        self._keys = keys

    def app(self, extra: Sequence[Route]) -> Starlette:
        """The back door, with the oracle that only this fake has."""
        own = [
            Route("/_fake/health", self._health),
            Route("/_fake/requests", self._requests),
            Route("/_fake/faults", self._faults, methods=["GET", "POST", "DELETE"]),
            Route("/_fake/release", self._release, methods=["POST"]),
            Route("/_fake/clock", self._time, methods=["GET", "POST"]),
            Route("/_fake/keys", self._habits, methods=["GET", "POST"]),
        ]
        return Starlette(routes=[*own, *extra])

    async def _health(self, _request: Request) -> Response:
        told = {"status": "ok", "fake": self._name, "now": self._clock.now(), **self._keys.as_json()}
        return JSONResponse(told)

    async def _habits(self, request: Request) -> Response:
        if request.method == "POST":
            wish = await _body(request)
            try:
                await self._storage.write(lambda db: self._keys.change(db, wish))
            except BadHabit as error:
                return JSONResponse({"error": str(error)}, 422)
        return JSONResponse(self._keys.as_json())

    async def _requests(self, request: Request) -> Response:
        key = request.query_params.get("key")
        return JSONResponse({"requests": await self._storage.write(lambda db: request_log.rows(db, key))})

    async def _faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._plan.clear()
        if request.method == "POST":
            try:
                fault = self._plan.add(await _body(request))
            except BadFault as error:
                return JSONResponse({"error": str(error)}, 422)
            if fault.shuts_at_once:
                self._doors.refuse(fault)
            return JSONResponse(fault.as_json(), 201)
        return JSONResponse({"faults": self._plan.as_json()})

    async def _release(self, request: Request) -> Response:
        return JSONResponse({"released": self._plan.release((await _body(request)).get("id"))})

    async def _time(self, request: Request) -> Response:
        seconds = float((await _body(request)).get("advance_seconds", 0)) if request.method == "POST" else 0.0
        if seconds < 0:
            return JSONResponse({"error": "advance_seconds must not be negative: time only goes on"}, 422)
        if seconds:
            await self._storage.write(lambda db: self._clock.advance(db, seconds))
        return JSONResponse({"now": self._clock.now(), "offset_seconds": self._clock.offset_seconds})


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object sent along; an empty body is an empty object."""
    if not await request.body():
        return {}
    body = await request.json()
    return body if isinstance(body, dict) else {}
