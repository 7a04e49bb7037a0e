"""Everything the Stripe fake can show, by id and in Stripe's order: newest first, read-after-write.

Lists go by `created` and then by arrival, as Stripe's do, so a page is one walk along an index however much there is
(Stripe docs, "Pagination").
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, object TEXT NOT NULL, created INTEGER NOT NULL,
    customer TEXT, payment_intent TEXT, charge TEXT, source TEXT, type TEXT, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_in_order ON objects (object, created, seq);
CREATE INDEX IF NOT EXISTS objects_of_type ON objects (object, type, created, seq) WHERE type IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_of_customer ON objects (customer, object, created, seq) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_of_intent ON objects (payment_intent, object, created, seq)
    WHERE payment_intent IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_of_charge ON objects (charge, object) WHERE charge IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_of_source ON objects (source, object) WHERE source IS NOT NULL;
"""
# Columns that the state folder of an earlier fake does not have.
NEW_COLUMNS = (("objects", "charge"), ("objects", "source"), ("ledger", "refund"))

# Stripe docs, "Pagination".
PAGE_DEFAULT = 10
PAGE_MAX = 100

encode = json.JSONEncoder(separators=(",", ":")).encode
COLUMNS = ("id", "object", "created", "customer", "payment_intent", "charge", "source", "type")
_INSERT = f"INSERT INTO objects ({', '.join(COLUMNS)}, body) VALUES ({'?, ' * len(COLUMNS)}?)"
_UPSERT = _INSERT + (
    " ON CONFLICT (id) DO UPDATE SET body = excluded.body, customer = excluded.customer, created = excluded.created"
)


def adopt(connection: sqlite3.Connection) -> None:
    """Bring the tables of an older fake up to date: a state folder outlives the program that wrote it."""
    for table, column in NEW_COLUMNS:
        known = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if known and column not in known:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")


def save(connection: sqlite3.Connection, thing: Mapping[str, Any]) -> None:
    """Insert an object or replace its body; its place in lists stays the first one."""
    connection.execute(_UPSERT, _row(thing))


def save_many(connection: sqlite3.Connection, things: Iterable[tuple[Mapping[str, Any], str]]) -> None:
    """Insert new objects in bulk, each with its body as text."""
    connection.executemany(_INSERT, ((*map(thing.get, COLUMNS), body) for thing, body in things))


def _row(thing: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*map(thing.get, COLUMNS), encode(thing))


def load(connection: sqlite3.Connection, kind: str, object_id: str) -> Json | None:
    """One object by id, or None."""
    row = connection.execute("SELECT body FROM objects WHERE id = ? AND object = ?", (object_id, kind)).fetchone()
    return json.loads(row["body"]) if row else None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int = PAGE_DEFAULT
    starting_after: str | None = None
    ending_before: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a listed object must be: SQL conditions with their values, and any one of some types."""

    kind: str
    conditions: Mapping[str, object] = field(default_factory=dict)
    types: Sequence[str] = ()


def listed(connection: sqlite3.Connection, wish: Wish, page: Page) -> tuple[list[Json], bool]:
    """The objects that meet the wish, and whether there are more."""
    backwards = page.ending_before is not None
    found = []
    # One walk along the index for each type, merged here: SQLite would sort the union of all of them first.
    for one in wish.types or (None,):
        found += _walk(connection, wish, page, one)
    found.sort(key=lambda row: (row["created"], row["seq"]), reverse=not backwards)
    bodies = [json.loads(row["body"]) for row in found[: page.limit]]
    return (bodies[::-1] if backwards else bodies), len(found) > page.limit


def _walk(connection: sqlite3.Connection, wish: Wish, page: Page, one_type: str | None) -> list[sqlite3.Row]:
    where, values = ["object = ?", *wish.conditions], [wish.kind, *wish.conditions.values()]
    if one_type is not None:
        where.append("type GLOB ?" if "*" in one_type else "type = ?")
        values.append(one_type)
    order, comparison = ("ASC", ">") if page.ending_before else ("DESC", "<")
    if cursor := page.ending_before or page.starting_after:
        created, seq = _place(connection, cursor)
        where.append(f"(created, seq) {comparison} (?, ?)")
        values += [created, seq]
    return connection.execute(
        f"SELECT seq, created, body FROM objects WHERE {' AND '.join(where)}"
        f" ORDER BY created {order}, seq {order} LIMIT ?",
        (*values, page.limit + 1),
    ).fetchall()


def _place(connection: sqlite3.Connection, object_id: str) -> tuple[int, int]:
    row = connection.execute("SELECT created, seq FROM objects WHERE id = ?", (object_id,)).fetchone()
    if row is None:
        raise UnknownCursor(object_id)
    return int(row["created"]), int(row["seq"])


class UnknownCursor(LookupError):
    """A page is to start at an object that is not there; the argument is its id."""


def count(connection: sqlite3.Connection, kind: str, event_type: str | None = None) -> int:
    """How many objects of a kind there are."""
    return int(
        connection.execute(
            "SELECT count(*) FROM objects WHERE object = ? AND (? IS NULL OR type = ?)", (kind, event_type, event_type)
        ).fetchone()[0]
    )
