"""Who is told about events, and how badly: the endpoints, and the deliveries each of them is owed, all durable.

An endpoint reads the events as a log behind a cursor of its own. Moving the cursor and writing down what is owed is
one commit, so a fake killed at any instant owes each event exactly as often as its knobs say.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, cursor INTEGER NOT NULL, seen INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, event TEXT NOT NULL, type TEXT NOT NULL,
    why TEXT NOT NULL CHECK (why IN ('event', 'duplicate', 'resend')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'dropped')),
    due_at REAL NOT NULL, owed_since REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS webhook_deliveries_due ON webhook_deliveries (endpoint, state, due_at);
CREATE TABLE IF NOT EXISTS webhook_doubles (original TEXT PRIMARY KEY, double TEXT NOT NULL UNIQUE);
"""

# An endpoint that reorders waits this long (by the fake's clock) for its window to fill, then sends what it has.
REORDER_PATIENCE_SECONDS = 5.0
# A backlog is taken in bites, so that requests are answered in between.
GROUPS_AT_ONCE = 200
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class BadEndpoint(ValueError):
    """The admin asked for an endpoint that cannot be; the message names the field."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One registered URL and its knobs; all of them at rest means: each event once, in order, signed."""

    id: str
    url: str
    secret: str
    enabled_events: Sequence[str] = ("*",)
    duplicate: int = 1  # copies of each delivery
    reorder: int = 1  # events are gathered in groups of this size, and each group is sent backwards
    delay: float = 0.0  # seconds on the fake's clock
    drop: int | Sequence[str] = 0  # every n-th event, or the event types that are never sent
    double_event: bool = False  # a second Event, with an id of its own, for each change
    stale_timestamp: bool | int = False  # True: always; n: the first n tries of each delivery
    bad_signature: bool | int = False  # the same
    two_secrets: str | None = None  # the secret that is being rolled out: each delivery is signed with both
    retry_seconds: float = 60.0  # pause before the second try; it doubles with each one

    def drops(self, event_type: str, number: int) -> bool:
        """Whether the `number`-th event of this endpoint is lost on the way."""
        if isinstance(self.drop, int):
            return self.drop > 0 and number % self.drop == 0
        return _matches(event_type, self.drop)

    def wants(self, event_type: str) -> bool:
        """Whether the endpoint subscribed to this type."""
        return _matches(event_type, self.enabled_events)


_FIELDS = frozenset(field.name for field in fields(Endpoint))


def _matches(event_type: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(event_type, pattern) for pattern in patterns)


def register(connection: sqlite3.Connection, wish: Mapping[str, Any]) -> Endpoint:
    """Add an endpoint, which hears of events from now on, or turn the knobs of the one named by `id`."""
    if unknown := sorted(set(wish) - _FIELDS):
        raise BadEndpoint(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    known = find(connection, str(wish.get("id")))
    if known is None and "id" in wish:
        raise BadEndpoint(f"no endpoint {wish['id']!r}")
    before = asdict(known) if known else {"id": _new_id("we"), "secret": _new_id("whsec"), "url": ""}
    endpoint = Endpoint(**{**before, **wish})
    if urlsplit(endpoint.url).hostname not in _LOOPBACK:
        raise BadEndpoint("url must be an http address on this machine")
    if endpoint.duplicate < 1 or endpoint.reorder < 1:
        raise BadEndpoint("duplicate and reorder are at least 1")
    connection.execute(
        "INSERT INTO webhook_endpoints (id, body, cursor) VALUES (?, ?, (SELECT coalesce(max(seq), 0) FROM objects))"
        " ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (endpoint.id, json.dumps(asdict(endpoint))),
    )
    return endpoint


def find(connection: sqlite3.Connection, endpoint_id: str) -> Endpoint | None:
    """One endpoint as it is now."""
    row = connection.execute("SELECT body FROM webhook_endpoints WHERE id = ?", (endpoint_id,)).fetchone()
    return Endpoint(**json.loads(row["body"])) if row else None


def every(connection: sqlite3.Connection) -> list[Endpoint]:
    """All endpoints, oldest first."""
    rows = connection.execute("SELECT body FROM webhook_endpoints ORDER BY rowid")
    return [Endpoint(**json.loads(row["body"])) for row in rows]


def remove(connection: sqlite3.Connection, endpoint_id: str | None) -> int:
    """Forget one endpoint, or all, and what they are still owed; returns how many."""
    gone = connection.execute("DELETE FROM webhook_endpoints WHERE ? IS NULL OR id = ?", (endpoint_id, endpoint_id))
    connection.execute(
        "UPDATE webhook_deliveries SET state = 'dropped'"
        " WHERE state = 'pending' AND endpoint NOT IN (SELECT id FROM webhook_endpoints)"
    )
    return gone.rowcount


def plan(connection: sqlite3.Connection, endpoint: Endpoint, now: float) -> None:
    """Write down what new events this endpoint is owed, and move its cursor behind them."""
    row = connection.execute("SELECT cursor, seen FROM webhook_endpoints WHERE id = ?", (endpoint.id,)).fetchone()
    cursor, seen = row["cursor"], row["seen"]
    for _ in range(GROUPS_AT_ONCE):
        group = _ripe(connection, endpoint, cursor, now)
        if not group:
            break
        cursor = group[-1][0]
        wanted = [event for _, event in group if endpoint.wants(event["type"])]
        for number, event in reversed(list(enumerate(wanted, seen + 1))):
            state = "dropped" if endpoint.drops(event["type"], number) else "pending"
            for copy in range(endpoint.duplicate):
                _owe(connection, endpoint, event, now, why="duplicate" if copy else "event", state=state)
        for event in wanted if endpoint.double_event else ():
            _double(connection, event)
        seen += len(wanted)
    if cursor != row["cursor"]:
        connection.execute(
            "UPDATE webhook_endpoints SET cursor = ?, seen = ? WHERE id = ?", (cursor, seen, endpoint.id)
        )


def resend(connection: sqlite3.Connection, event_id: str, endpoint_id: str | None, now: float) -> int:
    """Owe an event once more, as after a click in Stripe's dashboard; returns to how many endpoints."""
    row = connection.execute("SELECT body FROM objects WHERE id = ? AND object = 'event'", (event_id,)).fetchone()
    if row is None:
        raise BadEndpoint(f"no event {event_id!r}")
    event = json.loads(row["body"])
    chosen = [endpoint for endpoint in every(connection) if endpoint_id in (None, endpoint.id)]
    for endpoint in chosen:
        _owe(connection, endpoint, event, now, why="resend")
    return len(chosen)


def _ripe(
    connection: sqlite3.Connection, endpoint: Endpoint, cursor: int, now: float
) -> list[tuple[int, dict[str, Any]]]:
    """The next group of events to be sent, none while a window that reorders is still filling; a lone event is a
    group of one.
    """
    rows = connection.execute(
        "SELECT seq, body FROM objects WHERE object = 'event' AND seq > ? ORDER BY seq LIMIT ?",
        (cursor, endpoint.reorder),
    )
    group = [(int(row["seq"]), dict(json.loads(row["body"]))) for row in rows]
    if len(group) < endpoint.reorder and group and group[0][1]["created"] + REORDER_PATIENCE_SECONDS > now:
        return []
    return group


def _owe(
    connection: sqlite3.Connection,
    endpoint: Endpoint,
    event: Mapping[str, Any],
    now: float,
    *,
    why: str,
    state: str = "pending",
) -> None:
    connection.execute(
        "INSERT INTO webhook_deliveries (endpoint, event, type, why, state, due_at, owed_since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (endpoint.id, event["id"], event["type"], why, state, now + endpoint.delay, now),
    )


def _double(connection: sqlite3.Connection, event: Mapping[str, Any]) -> None:
    """A second Event for the same change; every endpoint finds it in the log, and it is never doubled itself."""
    double = _new_id("evt")
    fresh = connection.execute(
        "INSERT INTO webhook_doubles SELECT ?, ?"
        " WHERE NOT EXISTS (SELECT 1 FROM webhook_doubles WHERE ? IN (original, double))",
        (event["id"], double, event["id"]),
    )
    if fresh.rowcount:
        connection.execute(
            "INSERT INTO objects (id, object, created, type, body) VALUES (?, 'event', ?, ?, ?)",
            (double, event["created"], event["type"], json.dumps({**event, "id": double})),
        )


def _new_id(prefix: str) -> str:
    return f"{prefix}_3{secrets.token_hex(12)}"
