"""Lanes: pause one and nothing of it is published until it is resumed; what is in flight already goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.core.errors import ValidationError
from service.store import actions, bell, lanes
from service.store.actions import Door
from service.store.database import statement, transaction


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane: rows that wait, are held by a pause, in flight or parked; `oldest_seconds`: how long one is due."""

    name: str
    paused_at: datetime | None
    paused_by: str | None
    pause_reason: str | None
    waiting: int
    held: int
    in_flight: int
    parked: int
    oldest_seconds: float | None


def listed(known: tuple[str, ...] = ()) -> list[Lane]:
    """Each lane of `known` (the settings'), and each that has rows or was ever paused."""
    with statement() as connection:
        found = {row["name"]: Lane(**row) for row in lanes.listed(connection)}
    empty = {name: Lane(name, None, None, None, 0, 0, 0, 0, None) for name in known}
    return sorted({**empty, **found}.values(), key=lambda lane: lane.name)


def pause(name: str, *, reason: str, actor: str, door: Door) -> None:
    """Raises ValidationError without a reason, or when it is paused already."""
    if not reason.strip():
        raise ValidationError("a reason is needed; whoever finds the lane paused reads it", field="reason")
    with transaction() as connection:
        if not lanes.pause(connection, name, actor=actor, reason=reason.strip()):
            raise ValidationError(f"lane {name} is paused already; counterfoil lanes list says by whom", field="lane")
        actions.write(connection, actor=actor, door=door, verb="pause", subject=f"lane {name}", reason=reason)


def resume(name: str, *, actor: str, door: Door, reason: str | None = None) -> None:
    """What was held is put back by the relays, in batches. Raises ValidationError when it is not paused."""
    with transaction() as connection:
        if not lanes.resume(connection, name):
            raise ValidationError(f"lane {name} is not paused", field="lane")
        actions.write(connection, actor=actor, door=door, verb="resume", subject=f"lane {name}", reason=reason)
    bell.ring()
