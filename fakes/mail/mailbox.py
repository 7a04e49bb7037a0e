"""One durable mailbox for both front doors: every accepted copy is kept, duplicates included.

Nothing is merged by Message-ID or recipient, so a message that was sent twice lies here twice (I1 for keyed mail,
and the honest count for blind mail).
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from typing import Any, Literal

SCHEMA = """
CREATE TABLE IF NOT EXISTS mailbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, via TEXT NOT NULL CHECK (via IN ('smtp', 'resend')),
    recipient TEXT NOT NULL, sender TEXT NOT NULL, message_id TEXT, subject TEXT, headers TEXT NOT NULL,
    raw BLOB NOT NULL, idempotency_key TEXT, at REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS mailbox_keeps BEFORE UPDATE ON mailbox BEGIN SELECT raise(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS mailbox_stays BEFORE DELETE ON mailbox BEGIN SELECT raise(ABORT, 'append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Copy:
    """One message accepted for one recipient."""

    id: str
    via: Literal["smtp", "resend"]
    recipient: str
    sender: str
    headers: Mapping[str, str]
    raw: bytes
    at: float
    idempotency_key: str | None = None


def accept(connection: sqlite3.Connection, copy: Copy) -> None:
    """Keep one copy; asked twice, there are two."""
    headers = {name.lower(): value for name, value in copy.headers.items()}
    connection.execute(
        "INSERT INTO mailbox (id, via, recipient, sender, message_id, subject, headers, raw, idempotency_key, at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            copy.id,
            copy.via,
            copy.recipient,
            copy.sender,
            headers.get("message-id"),
            headers.get("subject"),
            json.dumps(dict(copy.headers)),
            copy.raw,
            copy.idempotency_key,
            copy.at,
        ),
    )


def headers_of(raw: bytes) -> dict[str, str]:
    """The headers of an RFC 5322 message, unfolded and decoded."""
    message = message_from_bytes(raw, policy=policy.default)
    return {name: str(value) for name, value in message.items()}


def oracle(connection: sqlite3.Connection, recipient: str | None = None) -> dict[str, Any]:
    """Every copy (or one recipient's), and how often each message was accepted for each recipient.

    A message is known by its Message-ID, else by its idempotency key; one that has neither is its own.
    """
    mail = [
        {
            **dict(row),
            "headers": json.loads(row["headers"]),
            "raw": row["raw"].decode("utf-8", "replace"),
        }
        for row in connection.execute(
            "SELECT * FROM mailbox WHERE ? IS NULL OR recipient = ? ORDER BY seq", (recipient, recipient)
        )
    ]
    by_message = Counter(
        f"{row['message_id'] or row['idempotency_key'] or row['id']} {row['recipient']}" for row in mail
    )
    return {
        "mail": mail,
        "summary": {
            "rows": len(mail),
            "by_recipient": dict(Counter(row["recipient"] for row in mail)),
            "by_message_and_recipient": dict(by_message),
            "by_message_id": dict(Counter(row["message_id"] for row in mail if row["message_id"])),
            "by_key": dict(Counter(row["idempotency_key"] for row in mail if row["idempotency_key"])),
            "doubled": sorted(message for message, times in by_message.items() if times > 1),
        },
    }
