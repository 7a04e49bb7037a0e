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


@dataclass(frozen=True, slots=True)
class Group:
    """`error` is the last error without what is particular to one effect; `money` minor units by currency."""

    id: str
    kind: str
    state: str
    reason: str
    error: str
    count: int
    money: Mapping[str, int]
    first_seen: datetime
    last_seen: datetime
    sample: Sequence[str]
    notes: Sequence[Mapping[str, Any]]


def listed(*, tenant: str | None = None, group: str | None = None, limit: int = 50) -> list[Group]:
    """Largest first."""
    with statement() as connection:
        return [Group(**row) for row in groups.listed(connection, tenant=tenant, id_=group, limit=limit)]


def note(group_id: str, said: str, *, actor: str, door: Door, tenant: str | None = None) -> None:
    """Keep a note with the group. Raises ValidationError when it is empty, too long, or there is no such group."""
    if not said.strip() or len(said) > NOTE_CHARACTERS_MAX:
        raise ValidationError(f"a note has 1 to {NOTE_CHARACTERS_MAX} characters", field="note")
    with transaction() as connection:
        if not groups.listed(connection, id_=group_id, tenant=tenant, limit=1):
            raise ValidationError(f"no group {group_id}; counterfoil outbox groups lists them", field="group")
        groups.note(connection, group_id, said.strip(), author=actor, tenant=tenant)
        actions.write(connection, actor=actor, door=door, verb="note", subject=f"group {group_id}")
