"""The way of every HTTP request through a fake, in one fixed order.

    TCP faults → 401 → 429 → route and parameters (not stored) → key: mismatch 400, replay, in use 409
    → key taken, durably → endpoint → effect and stored answer in one commit → the answer's first byte

What stands before the key says nothing about an earlier request with the same key; what stands after it is kept under
the key. A provider fills the steps in as a `Dialect`; faults reach in between them.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from fakes.house import request_log, wire
from fakes.house.clock import Clock
from fakes.house.dialect import Arrival, Call, Dialect, Refusal, Refused, Route, find
from fakes.house.doors import Doors
from fakes.house.faults import Fault, Plan
from fakes.house.idempotency import Answer, Claimant, Fresh, InUse, KeyRules, Mismatch, claim, fingerprint, keep
from fakes.house.profiles import KeyBook
from fakes.house.storage import Storage

# What endpoints are written in is in `fakes.house.dialect`, and found here too.
__all__ = ["Arrival", "Call", "Pipeline", "Refusal", "Refused", "Route"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way out; `original` names the first request when this is its replay."""

    answer: Answer
    original: str | None = None


class Aftermath(Protocol):
    """What happens later about a request that was answered 500 and has been kept so."""

    def before(self, connection: sqlite3.Connection) -> int:
        """Where the events stand before the endpoint begins."""

    def after(
        self, connection: sqlite3.Connection, fault: Fault, arrival: Arrival, answer: Answer | None, since: int
    ) -> None:
        """Plan it; `answer` is what the endpoint said, None when it did not run, `since` what `before` returned."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one fake lends to the pipelines that stand in it."""

    storage: Storage
    plan: Plan
    clock: Clock
    doors: Doors
    keys: KeyBook
    aftermath: Aftermath
    numbers: Iterator[int]  # of requests, over all doors and lives
    latency_seconds: float


class Pipeline:
    """The front door of one HTTP fake; `handle` is its only endpoint."""

    def __init__(self, dialect: Dialect, around: Surroundings) -> None:
        self._dialect = dialect
        self._around = around
        self._storage = around.storage

    @property
    def _rules(self) -> KeyRules:
        return self._around.keys.rules(self._dialect.rules.length_max)

    async def handle(self, request: Request) -> Response:
        """One request, from its first byte to the answer (or the lack of one)."""
        arrival = await self._arrival(request)
        route, path_id = find(self._dialect.routes, arrival.method, arrival.path)
        fault = self._around.plan.strike(route.name if route else "unknown", arrival.address, arrival.body)
        self._storage.later(request_log.arrived(arrival, route, fault))
        if fault and fault.action == "refuse":
            self._around.doors.refuse(fault)
        answer = wire.instead(fault)
        if answer is None:
            reply = await self._reply(arrival, route, path_id, fault)
            answer = self._deliver(arrival, reply, fault)
        elif isinstance(answer, wire.Page):
            self._storage.later(request_log.answered(arrival, answer.status_code, replayed=False))
        return answer

    async def _arrival(self, request: Request) -> Arrival:
        body = await request.body()
        method, path = request.method, request.url.path
        return Arrival(
            seq=next(self._around.numbers),
            request_id=f"req_{secrets.token_hex(7)}",
            method=method,
            path=path,
            headers=request.headers,
            query=request.url.query,
            body=body,
            # Idempotency keys have a meaning on POST only (Stripe docs, "Idempotent requests").
            key=(request.headers.get("idempotency-key") or None) if method == "POST" else None,
            at=self._around.clock.now(),
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
        if len(arrival.key or "") > self._rules.length_max:
            raise self._refusal("key_too_long", arrival)
        params = route.parse(arrival)
        if action == "conflict_409":
            raise self._refusal("key_in_use", arrival)
        return _Execution(arrival, route, path_id, params, _claimant(arrival, account, params))

    def _refusal(self, why: Refusal, arrival: Arrival, fault: Fault | None = None) -> Refused:
        code = str(fault.code) if fault and fault.code else None
        return Refused(self._dialect.refusal(why, arrival, code))

    async def _keyed(self, call: _Execution, fault: Fault | None) -> Reply:
        claimed = await self._storage.write(lambda db: claim(db, self._rules, call.who))
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
        if self._around.latency_seconds:
            await asyncio.sleep(self._around.latency_seconds)
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
        failing = fault if fault and fault.action.startswith("status_500") else None
        since = self._around.aftermath.before(connection)
        if failing and failing.action == "status_500_stored_before":
            return self._failed(connection, call, failing, None, since)
        try:
            answer = call.route.run(Call(connection, call.arrival, call.params, call.path_id))
        except Refused as refused:
            # The endpoint had begun, so its refusal is kept, unlike those of the parameter check.
            answer = refused.answer
        if failing:
            return self._failed(connection, call, failing, answer, since)
        return self._keep(connection, call, answer)

    def _failed(
        self, connection: sqlite3.Connection, call: _Execution, fault: Fault, done: Answer | None, since: int
    ) -> Answer:
        """A 500, whatever the endpoint did; what is done about it later is planned in the same commit."""
        self._around.aftermath.after(connection, fault, call.arrival, done, since)
        return self._keep(connection, call, self._server_error(call), done)

    def _keep(
        self, connection: sqlite3.Connection, call: _Execution, answer: Answer, done: Answer | None = None
    ) -> Answer:
        if call.arrival.key:
            keep(connection, self._rules, call.who, answer, done)
        return answer

    def _server_error(self, call: _Execution) -> Answer:
        return self._dialect.refusal("server_error", call.arrival)

    def _deliver(self, arrival: Arrival, reply: Reply, fault: Fault | None) -> Response:
        answer = reply.answer
        headers = self._dialect.headers(arrival, answer, reply.original)
        response = wire.mangled(fault, answer.encoded(), answer.status, {**headers, **answer.headers})
        if not isinstance(response, wire.Cut | wire.Closed):
            replayed = reply.original is not None
            self._storage.later(request_log.answered(arrival, response.status_code, replayed=replayed))
        return response


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
