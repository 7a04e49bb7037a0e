"""The oracle: one append-only row per movement of money, and the objects around it.

Nothing here knows an idempotency key as a key, or compares metadata: a client that asks twice under two keys is
charged twice, and the ledger says so. That is the point of it (I1 is asserted here, not in our own tables).
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL,
    payment_intent TEXT NOT NULL, charge TEXT NOT NULL, idempotency_key TEXT, metadata TEXT NOT NULL, at REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS ledger_keeps BEFORE UPDATE ON ledger BEGIN SELECT raise(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS ledger_stays BEFORE DELETE ON ledger BEGIN SELECT raise(ABORT, 'append-only'); END;
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, object TEXT NOT NULL, created INTEGER NOT NULL,
    customer TEXT, payment_intent TEXT, type TEXT, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS objects_by_customer ON objects (object, customer, seq);
CREATE INDEX IF NOT EXISTS objects_by_intent ON objects (payment_intent, object);
"""

# Stripe docs, "Pagination".
PAGE_DEFAULT = 10
PAGE_MAX = 100


def move_money(
    connection: sqlite3.Connection,
    kind: str,
    intent: Mapping[str, Any],
    charge: Mapping[str, Any],
    *,
    key: str | None,
    at: float,
) -> None:
    """Write down that money moved. Asked twice, it moves twice."""
    connection.execute(
        "INSERT INTO ledger (kind, amount, currency, payment_intent, charge, idempotency_key, metadata, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            kind,
            charge["amount_captured"],
            charge["currency"],
            intent["id"],
            charge["id"],
            key,
            json.dumps(intent["metadata"], sort_keys=True),
            at,
        ),
    )


def save(connection: sqlite3.Connection, thing: Mapping[str, Any]) -> None:
    """Insert an object or replace its body; its place in lists stays the first one."""
    connection.execute(
        "INSERT INTO objects (id, object, created, customer, payment_intent, type, body) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (
            thing["id"],
            thing["object"],
            thing["created"],
            thing.get("customer"),
            thing.get("payment_intent"),
            thing.get("type"),
            json.dumps(thing),
        ),
    )


def load(connection: sqlite3.Connection, kind: str, object_id: str) -> dict[str, Any] | None:
    """One object by id, or None."""
    row = connection.execute("SELECT body FROM objects WHERE id = ? AND object = ?", (object_id, kind)).fetchone()
    return json.loads(row["body"]) if row else None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for; newest first, as Stripe lists."""

    limit: int = PAGE_DEFAULT
    starting_after: str | None = None
    ending_before: str | None = None


def listed(
    connection: sqlite3.Connection, kind: str, page: Page, conditions: Mapping[str, object]
) -> tuple[list[dict[str, Any]], bool]:
    """The objects that meet all conditions (`"customer = ?": "cus_1"`), and whether there are more."""
    where = ["object = ?", *conditions]
    values: list[object] = [kind, *conditions.values()]
    if page.starting_after:
        where.append("seq < (SELECT seq FROM objects WHERE id = ?)")
        values.append(page.starting_after)
    if page.ending_before:
        where.append("seq > (SELECT seq FROM objects WHERE id = ?)")
        values.append(page.ending_before)
    order = "ASC" if page.ending_before else "DESC"
    limit = max(1, min(page.limit, PAGE_MAX))
    rows = connection.execute(
        f"SELECT body FROM objects WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?", (*values, limit + 1)
    ).fetchall()
    found = [json.loads(row["body"]) for row in rows[:limit]]
    return (found[::-1] if page.ending_before else found), len(rows) > limit


def oracle(connection: sqlite3.Connection, effect_id: str | None = None) -> dict[str, Any]:
    """All money that moved, or one effect's, and what a test asks first: how often per effect (`effect_id`)."""
    money = [
        {**dict(row), "metadata": json.loads(row["metadata"])}
        for row in connection.execute(
            "SELECT * FROM ledger WHERE ? IS NULL OR json_extract(metadata, '$.effect_id') = ? ORDER BY seq",
            (effect_id, effect_id),
        )
    ]
    by_effect = Counter(row["metadata"]["effect_id"] for row in money if "effect_id" in row["metadata"])
    amounts: Counter[str] = Counter()
    for row in money:
        amounts[row["currency"]] += row["amount"]
    return {
        "money": money,
        "summary": {
            "rows": len(money),
            "by_effect": dict(by_effect),
            "doubled": sorted(effect for effect, times in by_effect.items() if times > 1),
            "without_effect": sum("effect_id" not in row["metadata"] for row in money),
            "amounts": dict(amounts),
            "declined": _count(connection, "event", "charge.failed"),
            "payment_intents": _count(connection, "payment_intent"),
        },
    }


def _count(connection: sqlite3.Connection, kind: str, event_type: str | None = None) -> int:
    return int(
        connection.execute(
            "SELECT count(*) FROM objects WHERE object = ? AND (? IS NULL OR type = ?)", (kind, event_type, event_type)
        ).fetchone()[0]
    )
