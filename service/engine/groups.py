"""Failure groups: what fails in the same way, how much of it, and what people wrote about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.core.errors import ValidationError
from service.store import actions, groups
from service.store.actions import Door
from service.store.database import statement, transaction

NOTE_CHARACTERS_MAX = 2_000
# The first that an error begins with tells its class; what an outcome can be called stands in the providers.
CLASSES = (
    ("not sent", ("not_sent", "lease_lost", "dependency_unavailable", "broker")),
    ("no answer", ("no_answer", "blind_unknown", "unreadable", "not_smtp")),
    ("asked to wait", ("rate_limited", "in_progress", "quota_exceeded", "the pace", "the circuit", "waits for")),
    ("access", ("access_refused",)),
    ("provider", ("status_", "smtp_", "refused", "unexpected_status", "not_confirmed", "not_captured", "not_canceled")),
    ("look-up", ("look_up", "not_found", "cannot_be_asked", "absent", "key_expired", "hint_refused")),
    (
        "contradiction",
        ("echo_mismatch", "idempotency_error", "payment_intent_missing", "refund_missing", "requires_capture",
         "no_charge", "charge_without_reference", "contradiction"),
    ),
    ("bug", ("bug",)),
)  # fmt: skip
"""What sort of trouble an error is, for whoever must decide whether a replay can help."""


@dataclass(frozen=True, slots=True)
class Group:
    """`error` is the last error without what is particular to one effect; `money` minor units by currency.

    `code` is the provider's own word for it, or its status; `error_class` says what sort of trouble it is.
    """

    id: str
    kind: str
    state: str
    reason: str
    error: str
    code: str
    error_class: str
    count: int
    money: Mapping[str, int]
    first_seen: datetime
    last_seen: datetime
    sample: Sequence[str]
    notes: Sequence[Mapping[str, Any]]


def listed(*, tenant: str | None = None, group: str | None = None, limit: int = 50) -> list[Group]:
    """Largest first."""
    with statement() as connection:
        rows = groups.listed(connection, tenant=tenant, id_=group, limit=limit)
    return [Group(error_class=trouble(row["error"]), **row) for row in rows]


def trouble(error: str) -> str:
    """The class of an error; 'other' for what is none of ours, or when there is none."""
    return next((name for name, begins in CLASSES if error.startswith(begins)), "other")


def note(group_id: str, said: str, *, actor: str, door: Door, tenant: str | None = None) -> None:
    """Keep a note with the group. Raises ValidationError when it is empty, too long, or there is no such group."""
    if not said.strip() or len(said) > NOTE_CHARACTERS_MAX:
        raise ValidationError(f"a note has 1 to {NOTE_CHARACTERS_MAX} characters", field="note")
    with transaction() as connection:
        if not groups.listed(connection, id_=group_id, tenant=tenant, limit=1):
            raise ValidationError(f"no group {group_id}; counterfoil outbox groups lists them", field="group")
        groups.note(connection, group_id, said.strip(), author=actor, tenant=tenant)
        actions.write(connection, actor=actor, door=door, verb="note", subject=f"group {group_id}")
