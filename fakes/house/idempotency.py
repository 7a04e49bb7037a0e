"""What a provider remembers under an idempotency key, for how long, and what it answers to the second request.

Stripe docs, "Idempotent requests" and "Advanced error handling": the answer of the first request is kept once the
endpoint began, success or failure, 500s included; the parameters must be the same; after the retention the key is
forgotten without a trace and the request is executed again. `KeyRules` holds what differs between providers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = """
CREATE TABLE IF NOT EXISTS idempotency_keys (
    account TEXT NOT NULL, key TEXT NOT NULL, path TEXT NOT NULL, fingerprint TEXT NOT NULL,
    request_id TEXT NOT NULL, created_at REAL NOT NULL,
    status INTEGER, body TEXT,  -- NULL while the first request is in flight
    PRIMARY KEY (account, key)
);
-- What an endpoint had done although its answer was a failure: kept by providers that re-run, so as not to repeat it.
CREATE TABLE IF NOT EXISTS finished_work (
    account TEXT NOT NULL, key TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (account, key)
);
"""

Failures = Literal[
    "kept",  # replayed like any other answer
    "not_500",  # replayed, but for 5xx, which free the key
    "released",  # free the key: the same request is executed again, whatever it did the first time
    "rerun",  # executed again, without repeating what had succeeded
]


@dataclass(frozen=True, slots=True)
class KeyRules:
    """One provider's habits with keys."""

    retention_seconds: float = 24 * 3600
    length_max: int = 255
    compares_parameters: bool = True
    failures: Failures = "kept"

    def frees(self, status: int) -> bool:
        """Whether an answer leaves the key as if it had never been used."""
        return (status >= 500 and self.failures == "not_500") or (status >= 300 and self.failures == "released")

    def runs_again(self, status: int) -> bool:
        """Whether an answer is kept, and yet not the last word."""
        return status >= 300 and self.failures == "rerun"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body, the part of an answer that a key remembers."""

    status: int
    body: Mapping[str, Any] | bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The bytes that go out, and that a key keeps."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Fresh:
    """The key was free; it is now in flight and belongs to this request."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The key has an answer; `original` is the id of the request that earned it."""

    answer: Answer
    original: str


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key belongs to another request; `path` is where that one went."""

    path: str


@dataclass(frozen=True, slots=True)
class InUse:
    """The first request with this key has not been answered yet."""


Claim = Fresh | Replay | Mismatch | InUse


@dataclass(frozen=True, slots=True)
class Claimant:
    """A request as the key layer sees it."""

    account: str
    key: str
    path: str
    fingerprint: str
    request_id: str
    at: float


def fingerprint(method: str, path: str, parameters: Mapping[str, Any]) -> str:
    """The identity of a request: method, path and parsed parameters, whatever their order on the wire."""
    canonical = json.dumps([method, path, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def claim(connection: sqlite3.Connection, rules: KeyRules, who: Claimant) -> Claim:
    """Take the key for this request, or say what it is taken for."""
    row = connection.execute(
        "SELECT * FROM idempotency_keys WHERE account = ? AND key = ?", (who.account, who.key)
    ).fetchone()
    if row is not None and row["created_at"] + rules.retention_seconds <= who.at:
        # Forgotten: no tombstone and no warning. The same key is a new request now, and may charge again.
        _forget(connection, who)
        row = None
    if row is None:
        connection.execute(
            "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)",
            (who.account, who.key, who.path, who.fingerprint, who.request_id, who.at),
        )
        return Fresh()
    if rules.compares_parameters and row["fingerprint"] != who.fingerprint:
        return Mismatch(row["path"])
    if row["status"] is None:
        return InUse()
    if rules.runs_again(row["status"]):
        return _again(connection, who)
    return Replay(Answer(row["status"], row["body"].encode()), row["request_id"])


def _again(connection: sqlite3.Connection, who: Claimant) -> Fresh | Replay:
    """After a failure: what had succeeded is told, what had not is tried again."""
    done = connection.execute(
        "SELECT * FROM finished_work WHERE account = ? AND key = ?", (who.account, who.key)
    ).fetchone()
    if done is None:
        _write(connection, who, None, None)
        return Fresh()
    _write(connection, who, done["status"], done["body"])
    return Replay(Answer(done["status"], done["body"].encode()), who.request_id)


def keep(
    connection: sqlite3.Connection, rules: KeyRules, who: Claimant, answer: Answer, done: Answer | None = None
) -> None:
    """Store the answer under the key, in the transaction of the effect it speaks of; `done` is what the endpoint had
    to say when the answer is a failure all the same.
    """
    if rules.frees(answer.status):
        _forget(connection, who)
        return
    _write(connection, who, answer.status, answer.encoded().decode())
    if done is not None and rules.runs_again(answer.status) and done.status < 300:
        connection.execute(
            "INSERT OR REPLACE INTO finished_work VALUES (?, ?, ?, ?)",
            (who.account, who.key, done.status, done.encoded().decode()),
        )


def settle_orphans(connection: sqlite3.Connection, answer: Answer | None) -> None:
    """Decide what became of the keys that a dead process left in flight: freed, or answered for good with `answer`.

    Effect and answer commit together, so none of them had an effect.
    """
    if answer is None:
        connection.execute("DELETE FROM idempotency_keys WHERE status IS NULL")
        return
    connection.execute(
        "UPDATE idempotency_keys SET status = ?, body = ? WHERE status IS NULL",
        (answer.status, answer.encoded().decode()),
    )


def _write(connection: sqlite3.Connection, who: Claimant, status: int | None, body: str | None) -> None:
    connection.execute(
        "UPDATE idempotency_keys SET status = ?, body = ? WHERE account = ? AND key = ?",
        (status, body, who.account, who.key),
    )


def _forget(connection: sqlite3.Connection, who: Claimant) -> None:
    for table in ("idempotency_keys", "finished_work"):
        connection.execute(f"DELETE FROM {table} WHERE account = ? AND key = ?", (who.account, who.key))
