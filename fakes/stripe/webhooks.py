"""The webhook sender: each event is posted, signed, until somebody answers 2xx or three days are over.

Stripe docs, "Receive Stripe events in your webhook endpoint": at least once, in no order, sometimes as two Events for
one change. Here an endpoint is served in order and once unless a knob (`webhook_endpoints`) says otherwise.
An attempt is recorded after its answer: a fake killed in between sends again, as Stripe may.

GET|POST|DELETE /_fake/webhooks {"url", "secret", knobs…}   register; with "id" turn the knobs; DELETE ?id=… or all
POST /_fake/webhooks/resend {"event": id, "endpoint": id}   owe it once more (to all endpoints without "endpoint")
GET  /_fake/webhooks/deliveries?event=…&endpoint=…          what was owed, with every attempt and its HTTP status
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import os
import sqlite3
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes.house.clock import Clock
from fakes.house.storage import Storage
from fakes.stripe import webhook_endpoints
from fakes.stripe.webhook_endpoints import BadEndpoint, Endpoint

SCHEMA = (
    webhook_endpoints.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS webhook_attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, delivery INTEGER NOT NULL, at REAL NOT NULL,
    status INTEGER, error TEXT, signature TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS webhook_attempts_by_delivery ON webhook_attempts (delivery);
"""
)

POLL_SECONDS = 0.03
BATCH = 20
# Below Stripe's own patience, which its documents do not name; a receiver must answer before it works (2xx first).
ANSWER_TIMEOUT_SECONDS = 10.0
# Stripe docs, the same page: live deliveries are tried "for up to three days with an exponential back off".
RETRY_FOR_SECONDS = 3 * 24 * 3600.0
RETRY_PAUSE_MAX_SECONDS = 12 * 3600.0
STALE_BY_SECONDS = 3600  # Stripe's libraries accept 300
_HEADERS = {
    "Accept": "*/*; q=0.5, application/xml",
    "Cache-Control": "no-cache",
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
}


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery whose time has come."""

    id: int
    tries: int
    owed_since: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One post and how it went; no status means no answer."""

    at: float
    signature: str
    status: int | None = None
    error: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver said 2xx; a redirect is a failure."""
        return self.status is not None and 200 <= self.status < 300


def signature(body: bytes, secrets: Sequence[str], at: int) -> str:
    """Stripe docs, "Verify webhook signatures manually": HMAC-SHA256 over `{t}.{body}`, one v1 for each secret."""
    signed = f"{at}.".encode() + body
    proofs = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={at}", *(f"v1={proof}" for proof in proofs)])


def _signed(endpoint: Endpoint, due: Due) -> str:
    """The header as the endpoint's knobs want it. The time is the machine's: the receiver judges it by its own."""
    at = int(time.time()) - (STALE_BY_SECONDS if _strikes(endpoint.stale_timestamp, due.tries) else 0)
    secrets = [endpoint.secret, *([endpoint.two_secrets] if endpoint.two_secrets else [])]
    if _strikes(endpoint.bad_signature, due.tries):
        secrets = ["not the secret"]
    return signature(due.body, secrets, at)


def _strikes(knob: bool | int, tries: int) -> bool:
    return knob if isinstance(knob, bool) else tries < knob


class Sender:
    """One task for each endpoint, so that a receiver that hangs holds up no other."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> list[Route]:
        """Go on where an earlier life stopped; returns the admin's routes."""
        for endpoint in await self._storage.write(webhook_endpoints.every):
            self._serve(endpoint.id)
        return [
            Route("/_fake/webhooks", self._endpoints, methods=["GET", "POST", "DELETE"]),
            Route("/_fake/webhooks/resend", self._resend, methods=["POST"]),
            Route("/_fake/webhooks/deliveries", self._deliveries),
        ]

    def _serve(self, endpoint_id: str) -> None:
        if endpoint_id not in self._tasks:
            self._tasks[endpoint_id] = task = asyncio.create_task(self._run(endpoint_id))
            task.add_done_callback(_loudly)

    async def _run(self, endpoint_id: str) -> None:
        async with httpx2.AsyncClient(timeout=ANSWER_TIMEOUT_SECONDS, trust_env=False, headers=_HEADERS) as client:
            while (sent := await self._run_once(client, endpoint_id)) is not None:
                if not sent:
                    await asyncio.sleep(POLL_SECONDS)
        del self._tasks[endpoint_id]

    async def _run_once(self, client: httpx2.AsyncClient, endpoint_id: str) -> int | None:
        """Send what is due, one after the other. Returns how many posts were made, None when the endpoint is gone."""
        now = self._clock.now()
        endpoint, batch = await self._storage.write(lambda db: _due(db, endpoint_id, now))
        if endpoint is None:
            return None
        for due in batch:
            attempt = await self._post(client, endpoint, due)
            await self._storage.write(functools.partial(_record, endpoint=endpoint, due=due, attempt=attempt))
        return len(batch)

    async def _post(self, client: httpx2.AsyncClient, endpoint: Endpoint, due: Due) -> Attempt:
        header, at = _signed(endpoint, due), self._clock.now()
        try:
            answer = await client.post(endpoint.url, content=due.body, headers={"Stripe-Signature": header})
        except httpx2.HTTPError as error:
            return Attempt(at, header, error=f"{type(error).__name__}: {error}")
        return Attempt(at, header, status=answer.status_code)

    async def _endpoints(self, request: Request) -> Response:
        if request.method == "POST":
            wish = await request.json()
            try:
                endpoint = await self._storage.write(lambda db: webhook_endpoints.register(db, wish))
            except (BadEndpoint, TypeError) as error:
                return JSONResponse({"error": str(error)}, 422)
            self._serve(endpoint.id)
            return JSONResponse(asdict(endpoint), 201)
        if request.method == "DELETE":
            chosen = request.query_params.get("id")
            return JSONResponse({"removed": await self._storage.write(lambda db: webhook_endpoints.remove(db, chosen))})
        return JSONResponse({"endpoints": [asdict(one) for one in await self._storage.write(webhook_endpoints.every)]})

    async def _resend(self, request: Request) -> Response:
        wish, now = await request.json(), self._clock.now()
        event, endpoint = str(wish.get("event")), wish.get("endpoint")
        try:
            owed = await self._storage.write(lambda db: webhook_endpoints.resend(db, event, endpoint, now))
        except BadEndpoint as error:
            return JSONResponse({"error": str(error)}, 404)
        return JSONResponse({"resent": owed})

    async def _deliveries(self, request: Request) -> Response:
        event, endpoint = request.query_params.get("event"), request.query_params.get("endpoint")
        return JSONResponse({"deliveries": await self._storage.write(lambda db: _listed(db, event, endpoint))})


def _loudly(task: asyncio.Task[None]) -> None:
    """A sender that broke must not look like a receiver that never got anything."""
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error)
        os._exit(os.EX_SOFTWARE)


def _due(connection: sqlite3.Connection, endpoint_id: str, now: float) -> tuple[Endpoint | None, list[Due]]:
    """The endpoint as it is now and what is to be posted to it, oldest first; new events are taken in before."""
    endpoint = webhook_endpoints.find(connection, endpoint_id)
    if endpoint is None:
        return None, []
    webhook_endpoints.plan(connection, endpoint, now)
    waiting = connection.execute("SELECT count(*) FROM webhook_endpoints").fetchone()[0]
    rows = connection.execute(
        "SELECT d.id, d.tries, d.owed_since, o.body FROM webhook_deliveries d JOIN objects o ON o.id = d.event"
        " WHERE d.endpoint = ? AND d.state = 'pending' AND d.due_at <= ? ORDER BY d.due_at, d.id LIMIT ?",
        (endpoint.id, now, BATCH),
    )
    return endpoint, [
        Due(
            row["id"],
            row["tries"],
            row["owed_since"],
            json.dumps({**json.loads(row["body"]), "pending_webhooks": waiting}, indent=2).encode(),
        )
        for row in rows
    ]


def _record(connection: sqlite3.Connection, endpoint: Endpoint, due: Due, attempt: Attempt) -> None:
    """Keep the attempt, and say when the next one is, if ever."""
    connection.execute(
        "INSERT INTO webhook_attempts (delivery, at, status, error, signature) VALUES (?, ?, ?, ?, ?)",
        (due.id, attempt.at, attempt.status, attempt.error, attempt.signature),
    )
    again_at = attempt.at + min(endpoint.retry_seconds * 2**due.tries, RETRY_PAUSE_MAX_SECONDS)
    exhausted = again_at > due.owed_since + RETRY_FOR_SECONDS
    state = "delivered" if attempt.taken else "failed" if exhausted else "pending"
    connection.execute(
        "UPDATE webhook_deliveries SET state = ?, due_at = ?, tries = tries + 1 WHERE id = ? AND state = 'pending'",
        (state, again_at, due.id),
    )


def _listed(connection: sqlite3.Connection, event: str | None, endpoint: str | None) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT * FROM webhook_deliveries WHERE (? IS NULL OR event = ?) AND (? IS NULL OR endpoint = ?) ORDER BY id",
        (event, event, endpoint, endpoint),
    ).fetchall()
    attempts = "SELECT at, status, error, signature FROM webhook_attempts WHERE delivery = ? ORDER BY seq"
    return [
        {**dict(row), "attempts": [dict(tried) for tried in connection.execute(attempts, (row["id"],))]} for row in rows
    ]
