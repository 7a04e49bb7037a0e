"""Every request that reached a fake, durable: how often was it sent, and what did it hear back?

A request is logged in the commit that takes its key at the latest, its answer soon after; a row without a status was
never answered (cut, or killed meanwhile).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakes.house.dialect import Arrival, Route
    from fakes.house.faults import Fault

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY, request_id TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL, route TEXT,
    idempotency_key TEXT, fault TEXT, status INTEGER, replayed INTEGER NOT NULL DEFAULT 0, at REAL NOT NULL
);
"""


def arrived(arrival: Arrival, route: Route | None, fault: Fault | None) -> Callable[[sqlite3.Connection], object]:
    """The write that notes an arrival and the fault it met."""
    row = (
        arrival.seq,
        arrival.request_id,
        arrival.method,
        arrival.path,
        route.name if route else None,
        arrival.key,
        fault.action if fault else None,
        arrival.at,
    )
    return lambda db: db.execute(
        "INSERT INTO requests (seq, request_id, method, path, route, idempotency_key, fault, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def answered(arrival: Arrival, status: int, *, replayed: bool) -> Callable[[sqlite3.Connection], object]:
    """The write that notes the answer."""
    row = (status, replayed, arrival.seq)
    return lambda db: db.execute("UPDATE requests SET status = ?, replayed = ? WHERE seq = ?", row)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row goes: its number, the request or session it belongs to, and when."""

    seq: int
    request_id: str
    at: float


def reached(place: Place, phase: str, address: str, fault: Fault | None) -> Callable[[sqlite3.Connection], object]:
    """The write that notes a phase of an SMTP session, and whom it was about."""
    row = (place.seq, place.request_id, "SMTP", address, phase, fault.action if fault else None, place.at)
    return lambda db: db.execute(
        "INSERT INTO requests (seq, request_id, method, path, route, fault, at) VALUES (?, ?, ?, ?, ?, ?, ?)", row
    )


def replied(seq: int, status: int) -> Callable[[sqlite3.Connection], object]:
    """The write that notes the reply to a phase."""
    return lambda db: db.execute("UPDATE requests SET status = ? WHERE seq = ?", (status, seq))


def next_seq(connection: sqlite3.Connection) -> int:
    """Where the numbering goes on after a restart."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM requests").fetchone()[0])


def rows(connection: sqlite3.Connection, key: str | None) -> list[dict[str, Any]]:
    """The log, oldest first; `key` keeps those whose idempotency key contains it."""
    found = connection.execute(
        "SELECT * FROM requests WHERE ? IS NULL OR instr(idempotency_key, ?) > 0 ORDER BY seq", (key, key)
    )
    return [{**dict(row), "replayed": bool(row["replayed"])} for row in found]
