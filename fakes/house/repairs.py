"""What the provider's staff do about a request that ended in a stored 500: later, and without telling the caller.

Stripe docs, "Advanced error handling": a charge that had reached the network is rolled forward, others back; the
answer that is kept does not change, and webhooks tell of the objects that appear. What is planned is planned in the
commit of the 500, carried out by the fake's clock, and survives a SIGKILL. A refund cannot be rolled back here: it
stays done, which is the safer lie.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import traceback
from dataclasses import asdict, replace
from typing import Any

from fakes.house.clock import Clock
from fakes.house.dialect import Arrival, Call, Refused, Route, find
from fakes.house.faults import Fault
from fakes.house.idempotency import Answer
from fakes.house.storage import Storage

SCHEMA = """
CREATE TABLE IF NOT EXISTS repairs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, due_at REAL NOT NULL, done INTEGER NOT NULL DEFAULT 0,
    request TEXT, events TEXT  -- one of them: a request to carry out as if it came in, or events to let out
);
CREATE INDEX IF NOT EXISTS repairs_due ON repairs (due_at) WHERE NOT done;
"""

POLL_SECONDS = 0.03


class Nothing:
    """A provider that repairs nothing: what failed has failed."""

    def before(self, connection: sqlite3.Connection) -> int:  # noqa: ARG002 - as in Repairs
        """No events."""
        return 0

    def after(self, *_what: object) -> None:
        """No plans."""

    async def run(self) -> None:
        """No work."""


class Repairs:
    """The staff of a provider that has objects and events."""

    def __init__(self, storage: Storage, clock: Clock, routes: tuple[Route, ...]) -> None:
        self._storage = storage
        self._clock = clock
        clock.on_jump.append(self._run_once)
        self._routes = routes
        self._wake = asyncio.Event()
        self._wake.set()  # an earlier life may have left something to do
        self._loop = asyncio.get_running_loop()

    def before(self, connection: sqlite3.Connection) -> int:
        """The last object there is."""
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM objects").fetchone()[0])

    def after(
        self, connection: sqlite3.Connection, fault: Fault, arrival: Arrival, answer: Answer | None, since: int
    ) -> None:
        """Plan what the fault's `then` says."""
        due_at = arrival.at + (fault.seconds or 0.0)
        request, events = None, None
        match fault.then:
            case "roll_forward" if answer is None:
                request = arrival
            case "roll_forward":
                events = _withdrawn(connection, since)
            case "roll_back":
                request = _undoing(arrival, answer)
            case "silence":
                _withdrawn(connection, since)
        if request or events:
            row = (due_at, _packed(request) if request else None, json.dumps(events) if events else None)
            connection.execute("INSERT INTO repairs (due_at, request, events) VALUES (?, ?, ?)", row)
            # Called in the storage's own thread.
            self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Carry out what is due, for ever."""
        try:
            while True:
                await self._wake.wait()
                if not await self._storage.write(self._run_once):
                    self._wake.clear()
                await asyncio.sleep(POLL_SECONDS)
        except Exception:  # noqa: BLE001 - see below
            # A repair that broke must not look like a provider that keeps silent.
            traceback.print_exc()
            os._exit(os.EX_SOFTWARE)

    def _run_once(self, connection: sqlite3.Connection) -> int:
        """Do what is due by now; returns how many repairs are still planned."""
        now = self._clock.now()
        rows = connection.execute("SELECT * FROM repairs WHERE NOT done AND due_at <= ? ORDER BY id", (now,)).fetchall()
        for row in rows:
            connection.execute("UPDATE repairs SET done = 1 WHERE id = ?", (row["id"],))
            if row["events"]:
                _let_out(connection, json.loads(row["events"]), now)
            else:
                self._carry_out(connection, _unpacked(row["request"]), now)
        return int(connection.execute("SELECT count(*) FROM repairs WHERE NOT done").fetchone()[0])

    def _carry_out(self, connection: sqlite3.Connection, arrival: Arrival, now: float) -> None:
        route, path_id = find(self._routes, arrival.method, arrival.path)
        if route is None:
            raise LookupError(f"a repair wants {arrival.method} {arrival.path}, which is not there")
        arrival = replace(arrival, at=now)
        try:
            route.run(Call(connection, arrival, route.parse(arrival), path_id))
        except Refused as refused:
            # Somebody was faster: it is captured, refunded or cancelled already.
            print(f"repair of {arrival.path} refused: {refused.answer.encoded().decode()}")


def _withdrawn(connection: sqlite3.Connection, since: int) -> list[dict[str, Any]]:
    """Take back the events of this transaction, which nobody has seen yet."""
    rows = connection.execute("SELECT body FROM objects WHERE object = 'event' AND seq > ? ORDER BY seq", (since,))
    events = [json.loads(row["body"]) for row in rows]
    connection.execute("DELETE FROM objects WHERE object = 'event' AND seq > ?", (since,))
    return events


def _let_out(connection: sqlite3.Connection, events: list[dict[str, Any]], now: float) -> None:
    for event in events:
        late = {**event, "created": int(now)}
        connection.execute(
            "INSERT INTO objects (id, object, created, type, body) VALUES (?, 'event', ?, ?, ?)",
            (late["id"], late["created"], late["type"], json.dumps(late)),
        )


def _undoing(arrival: Arrival, answer: Answer | None) -> Arrival | None:
    """The request that takes an effect back, without a key: the staff's, not the caller's."""
    thing = answer.body if answer and isinstance(answer.body, dict) else {}
    if thing.get("object") != "payment_intent":
        return None
    path, body = f"/v1/payment_intents/{thing['id']}/cancel", ""
    if thing["status"] == "succeeded":
        path, body = "/v1/refunds", f"payment_intent={thing['id']}"
    return replace(arrival, method="POST", path=path, query="", body=body.encode(), key=None)


def _packed(arrival: Arrival) -> str:
    return json.dumps({**asdict(replace(arrival, headers={})), "body": arrival.body.decode("utf-8", "replace")})


def _unpacked(text: str) -> Arrival:
    fields = json.loads(text)
    return Arrival(**{**fields, "body": fields["body"].encode()})
