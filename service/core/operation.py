"""What an operator asks for and gets to see: which effects, what to do to them, at which pace, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.core.state import State

BATCH = 100  # one commit's share: no row stays locked for long, and a pause is heeded soon


class Verb(StrEnum):
    """What an operation does."""

    REPLAY = "replay"
    PARK = "park"
    UNPARK = "unpark"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which effects: all of what is given must fit, and something must be given. Times are of the acceptance."""

    ids: tuple[str, ...] = ()
    state: State | str | None = None
    """parked, unknown, or stuck: those, and what is long overdue."""
    kind: str | None = None
    tenant: str | None = None
    lane: str | None = None
    older_than_seconds: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    error_like: str | None = None
    group: str | None = None
    key_prefix: str | None = None
    ref: str | None = None
    operation: str | None = None
    limit: int = 1000

    def wanted(self) -> dict[str, Any]:
        """The selectors that are given, without ids and limit."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("ids", "limit")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Pace:
    """How quickly, and when to stop: `per_second` effects, `canary` first ones that must succeed before the others
    begin, more than `failures_max` that come to rest failed, parked or unknown. `batch`: effects of one commit.
    """

    per_second: float | None = None
    canary: int = 0
    failures_max: int | None = None
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Planned:
    """A frozen set. `skipped`: ids by reason. `money`: minor units by currency. `more`: the limit cut it."""

    id: str
    verb: Verb
    ids: tuple[str, ...]
    skipped: Mapping[str, tuple[str, ...]]
    money: Mapping[str, int]
    more: bool
    oldest: datetime | None
    sample: tuple[Mapping[str, Any], ...]
    expires_at: datetime

    @property
    def eligible(self) -> int:
        """How many are in the set."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Progress:
    """An operation as it stands. `skipped`: by reason, since the start. `ended`: how the replayed ones came to rest."""

    id: str
    verb: str
    state: str
    total: int
    waiting: int
    done: int
    skipped: Mapping[str, int]
    ended: Mapping[str, int]
    skipped_at_plan: Mapping[str, int]
    money: Mapping[str, int]
    more: bool
    selector: Mapping[str, Any]
    tenant: str | None
    planned_by: str
    planned_at: datetime
    expires_at: datetime
    expired: bool
    reason: str | None = None
    started_by: str | None = None
    started_at: datetime | None = None
    per_second: float | None = None
    canary: int = 0
    failures_max: int | None = None
    batch: int = BATCH
    paused_at: datetime | None = None
    stop_reason: str | None = None
    finished_at: datetime | None = None
    unattended_seconds: float | None = None
    """Since a relay last looked after it, while it runs."""

    def document(self) -> dict[str, Any]:
        """For JSON, with datetimes as they are."""
        return asdict(self)
