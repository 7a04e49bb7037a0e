"""The way of every HTTP request through a fake, in one fixed order.

    TCP faults → 401 → 429 → route and parameters (not stored) → key: mismatch 400, replay, in use 409
    → key taken, durably → endpoint → effect and stored answer in one commit → the answer's first byte

What stands before the key says nothing about an earlier request with the same key; what stands after it is kept under
the key. A provider fills the steps in as a `Dialect`; faults reach in between them.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import sqlite3
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from starlette.requests import Request
from starlette.responses import Response

from fakes import request_log, wire
from fakes.clock import Clock
from fakes.faults import Fault, Plan
from fakes.idempotency import Answer, Claimant, Fresh, InUse, KeyRules, Mismatch, claim, fingerprint, keep
from fakes.storage import Storage

Refusal = Literal["unauthorized", "rate_limited", "unknown_route", "key_too_long", "key_in_use", "server_error"]


class Refused(Exception):
    """An endpoint or a parameter check says no, with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it came in."""

    seq: int
    request_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    query: str
    body: bytes
    key: str | None
    at: float

    @property
    def address(self) -> str:
        """What a fault's `key` is looked for in: the idempotency key, then the path."""
        return f"{self.key or ''} {self.path}"


@dataclass(frozen=True, slots=True)
class Call:
    """What an endpoint gets: an open transaction, checked parameters, and who asks."""

    connection: sqlite3.Connection
    arrival: Arrival
    params: Mapping[str, Any]
    path_id: str | None

    @property
    def now(self) -> int:
        """Whole seconds, as objects carry them."""
        return int(self.arrival.at)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: its name in the fault plan, its address, its parameters' check, and what it does."""

    name: str
    method: str
    path: re.Pattern[str]
    parse: Callable[[Arrival], Mapping[str, Any]]
    run: Callable[[Call], Answer]


class Dialect(Protocol):
    """How one provider speaks: its routes, its key rules, its refusals, its headers."""

    @property
    def rules(self) -> KeyRules:
        """What it keeps under a key."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """Its endpoints."""

    def account(self, arrival: Arrival) -> str | None:
        """Whose keys these are; None when the caller may not come in."""

    def refusal(self, why: Refusal, arrival: Arrival, code: str | None = None) -> Answer:
        """Its words for a refusal; `code` chooses among variants."""

    def mismatch(self, arrival: Arrival, first_path: str) -> Answer:
        """Its words for a key that belongs to another request."""

    def headers(self, arrival: Arrival, answer: Answer, original: str | None) -> dict[str, str]:
        """The headers of an answer; `original` is set when it is replayed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way out; `original` names the first request when this is its replay."""

    answer: Answer
    original: str | None = None


class Pipeline:
    """The front door of one HTTP fake; `handle` is its only endpoint."""

    def __init__(
        self, dialect: Dialect, storage: Storage, plan: Plan, clock: Clock, *, first_seq: int, latency_seconds: float
    ) -> None:
        self._dialect = dialect
        self._storage = storage
        self._plan = plan
        self._clock = clock
        self._next_seq = first_seq
        self._latency_seconds = latency_seconds

    async def handle(self, request: Request) -> Response:
        """One request, from its first byte to the answer (or the lack of one)."""
        arrival = await self._arrival(request)
        route, path_id = _find(self._dialect.routes, arrival)
        fault = self._plan.strike(route.name if route else "unknown", arrival.address)
        self._storage.later(request_log.arrived(arrival, route, fault))
        if fault and fault.action == "close_before":
            return wire.Cut()
        if fault and fault.action == "status_502_html":
            self._storage.later(request_log.answered(arrival, 502, replayed=False))
            return Response("<html><body><h1>502 Bad Gateway</h1></body></html>", 502, media_type="text/html")
        reply = await self._reply(arrival, route, path_id, fault)
        return self._deliver(arrival, reply, fault)

    async def _arrival(self, request: Request) -> Arrival:
        body = await request.body()
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        method, path = request.method, request.url.path
        return Arrival(
            seq=seq,
            request_id=f"req_{secrets.token_hex(7)}",
            method=method,
            path=path,
            headers=request.headers,
            query=request.url.query,
            body=body,
            # Idempotency keys have a meaning on POST only (Stripe docs, "Idempotent requests").
            key=(request.headers.get("idempotency-key") or None) if method == "POST" else None,
            at=self._clock.now(),
        )

    async def _reply(self, arrival: Arrival, route: Route | None, path_id: str | None, fault: Fault | None) -> Reply:
        """The steps of the module's first lines, in their order."""
        try:
            call = self._admit(arrival, route, path_id, fault)
            return await self._keyed(call, fault) if arrival.key else await self._execute(call, fault)
        except Refused as refused:
            return Reply(refused.answer)

    def _admit(self, arrival: Arrival, route: Route | None, path_id: str | None, fault: Fault | None) -> _Execution:
        """All that is checked in front of the key, and kept under none. Raises Refused."""
        action = fault.action if fault else None
        account = self._dialect.account(arrival)
        if account is None or action == "status_401":
            raise self._refusal("unauthorized", arrival)
        if action == "status_429":
            raise self._refusal("rate_limited", arrival, fault)
        if route is None:
            raise self._refusal("unknown_route", arrival)
        if len(arrival.key or "") > self._dialect.rules.length_max:
            raise self._refusal("key_too_long", arrival)
        params = route.parse(arrival)
        if action == "conflict_409":
            raise self._refusal("key_in_use", arrival)
        return _Execution(arrival, route, path_id, params, _claimant(arrival, account, params))

    def _refusal(self, why: Refusal, arrival: Arrival, fault: Fault | None = None) -> Refused:
        code = str(fault.code) if fault and fault.code else None
        return Refused(self._dialect.refusal(why, arrival, code))

    async def _keyed(self, call: _Execution, fault: Fault | None) -> Reply:
        claimed = await self._storage.write(lambda db: claim(db, self._dialect.rules, call.who))
        match claimed:
            case Fresh():
                return await self._execute(call, fault)
            case Mismatch(first_path):
                return Reply(self._dialect.mismatch(call.arrival, first_path))
            case InUse():
                raise self._refusal("key_in_use", call.arrival)
            case replay:
                if fault:
                    await fault.before_effect()
                    await fault.after_effect()
                return Reply(replay.answer, replay.original)

    async def _execute(self, call: _Execution, fault: Fault | None) -> Reply:
        if self._latency_seconds:
            await asyncio.sleep(self._latency_seconds)
        if fault:
            await fault.before_effect()
        try:
            answer = await self._storage.write(lambda db: self._effect(db, call, fault))
        except Exception:  # noqa: BLE001 - a bug in the fake is answered as providers answer theirs: 500, kept
            traceback.print_exc(file=sys.stderr)
            answer = await self._storage.write(lambda db: self._keep(db, call, self._server_error(call)))
        if fault:
            await fault.after_effect()
        return Reply(answer)

    def _effect(self, connection: sqlite3.Connection, call: _Execution, fault: Fault | None) -> Answer:
        """The endpoint, its effect and the stored answer: one transaction, on the disk before the first byte."""
        action = fault.action if fault else None
        if action == "status_500_stored_before":
            return self._keep(connection, call, self._server_error(call))
        try:
            answer = call.route.run(Call(connection, call.arrival, call.params, call.path_id))
        except Refused as refused:
            # The endpoint had begun, so its refusal is kept, unlike those of the parameter check.
            answer = refused.answer
        if action == "status_500_stored_after":
            answer = self._server_error(call)
        return self._keep(connection, call, answer)

    def _keep(self, connection: sqlite3.Connection, call: _Execution, answer: Answer) -> Answer:
        if call.arrival.key:
            keep(connection, self._dialect.rules, call.who, answer)
        return answer

    def _server_error(self, call: _Execution) -> Answer:
        return self._dialect.refusal("server_error", call.arrival)

    def _deliver(self, arrival: Arrival, reply: Reply, fault: Fault | None) -> Response:
        action = fault.action if fault else None
        if action == "close_after":
            return wire.Cut()
        self._storage.later(request_log.answered(arrival, reply.answer.status, replayed=reply.original is not None))
        kind = {"truncate": wire.Truncated, "drip": wire.Dripped}.get(action or "", Response)
        headers = self._dialect.headers(arrival, reply.answer, reply.original)
        return kind(
            reply.answer.encoded(), reply.answer.status, {**headers, **reply.answer.headers}, "application/json"
        )


@dataclass(frozen=True, slots=True)
class _Execution:
    """A request that passed the front checks."""

    arrival: Arrival
    route: Route
    path_id: str | None
    params: Mapping[str, Any]
    who: Claimant


def _claimant(arrival: Arrival, account: str, params: Mapping[str, Any]) -> Claimant:
    return Claimant(
        account=account,
        key=arrival.key or "",
        path=arrival.path,
        fingerprint=fingerprint(arrival.method, arrival.path, params),
        request_id=arrival.request_id,
        at=arrival.at,
    )


def _find(routes: tuple[Route, ...], arrival: Arrival) -> tuple[Route | None, str | None]:
    for route in routes:
        if route.method == arrival.method and (match := route.path.fullmatch(arrival.path)):
            return route, match.groupdict().get("id")
    return None, None
