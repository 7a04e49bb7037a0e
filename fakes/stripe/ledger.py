"""The oracle: one append-only row per movement of money.

Nothing here knows an idempotency key as a key, or compares metadata: a client that asks twice under two keys is
charged twice, and refunded twice, and the ledger says so. That is the point of it (I1 is asserted here, not in our own
tables). Amounts are positive; the kind says which way the money went.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fakes.stripe import objects

Kind = Literal[
    "charge",  # taken in one go
    "capture",  # taken from what an earlier authorisation held
    "refund",  # given back
    "refund_failed",  # what was given back came back: it undoes a refund and is nobody's effect
]
REVERSALS: frozenset[Kind] = frozenset({"refund_failed"})

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL, payment_intent TEXT NOT NULL, charge TEXT NOT NULL, idempotency_key TEXT,
    metadata TEXT NOT NULL, at REAL NOT NULL, refund TEXT
);
CREATE INDEX IF NOT EXISTS ledger_by_effect ON ledger (json_extract(metadata, '$.effect_id'));
CREATE TRIGGER IF NOT EXISTS ledger_keeps BEFORE UPDATE ON ledger BEGIN SELECT raise(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS ledger_stays BEFORE DELETE ON ledger BEGIN SELECT raise(ABORT, 'append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that went one way, once."""

    kind: Kind
    amount: int
    currency: str
    payment_intent: str
    charge: str
    key: str | None
    metadata: Mapping[str, str]
    at: float
    refund: str | None = None


def move_money(connection: sqlite3.Connection, movements: Iterable[Movement]) -> None:
    """Write down that money moved. Asked twice, it moves twice."""
    connection.executemany(
        "INSERT INTO ledger (kind, amount, currency, payment_intent, charge, idempotency_key, metadata, at, refund)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                moved.kind,
                moved.amount,
                moved.currency,
                moved.payment_intent,
                moved.charge,
                moved.key,
                json.dumps(moved.metadata, sort_keys=True),
                moved.at,
                moved.refund,
            )
            for moved in movements
        ),
    )


def oracle(connection: sqlite3.Connection, effect_id: str | None = None) -> dict[str, Any]:
    """All money that moved, or one effect's, and what a test asks first: how often per effect (`effect_id`).

    `rows`, `by_effect` and `doubled` count what somebody asked for: charges, captures and refunds. A refund that
    failed is undone by a row of its own, which `reversals` counts and which is nobody's second effect.
    """
    money = [{**dict(row), "metadata": json.loads(row["metadata"])} for row in _rows(connection, effect_id)]
    asked_for = [row for row in money if row["kind"] not in REVERSALS]
    by_effect = Counter(row["metadata"]["effect_id"] for row in asked_for if "effect_id" in row["metadata"])
    kinds = Counter(row["kind"] for row in money)
    refunded = _sums(money, "refund")
    for currency, amount in _sums(money, "refund_failed").items():
        refunded[currency] -= amount
    return {
        "money": money,
        "summary": {
            "rows": len(asked_for),
            "by_effect": dict(by_effect),
            "doubled": sorted(effect for effect, times in by_effect.items() if times > 1),
            "without_effect": sum("effect_id" not in row["metadata"] for row in asked_for),
            "amounts": dict(_sums(money, "charge", "capture")),
            "refunded": dict(refunded),
            "charges": kinds["charge"],
            "captures": kinds["capture"],
            "refunds": kinds["refund"],
            "reversals": kinds["refund_failed"],
            "declined": objects.count(connection, "event", "charge.failed"),
            "payment_intents": objects.count(connection, "payment_intent"),
        },
    }


def _rows(connection: sqlite3.Connection, effect_id: str | None) -> sqlite3.Cursor:
    if effect_id is None:
        return connection.execute("SELECT * FROM ledger ORDER BY seq")
    return connection.execute(
        "SELECT * FROM ledger WHERE json_extract(metadata, '$.effect_id') = ? ORDER BY seq", (effect_id,)
    )


def _sums(money: Iterable[Mapping[str, Any]], *kinds: Kind) -> Counter[str]:
    """Amounts by currency."""
    sums: Counter[str] = Counter()
    for row in money:
        if row["kind"] in kinds:
            sums[row["currency"]] += row["amount"]
    return sums
