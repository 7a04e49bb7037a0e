"""What the API answers about operations and groups of failures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.engine.operations import Planned, Progress

_ID = "019a2f6e-0000-7000-8000-0000000000f0"


class Sample(BaseModel):
    """An effect of a plan."""

    model_config = ConfigDict(extra="ignore")

    effect_id: str
    kind: str
    state: str
    dedupe_key: str | None = None
    amount: int | None = None
    currency: str | None = None
    last_error: str | None = None
    created_at: datetime | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the store."""
        return cls.model_validate({**row, "effect_id": str(row["effect_id"])})


class Plan(BaseModel):
    """A frozen set. `skipped`: ids by reason. `money`: minor units by currency. `more`: the limit has cut it."""

    id: str = Field(examples=[_ID])
    verb: str
    eligible: int
    ids: list[str]
    skipped: dict[str, list[str]]
    money: dict[str, int]
    more: bool
    oldest: datetime | None
    sample: list[Sample]
    expires_at: datetime

    @classmethod
    def of(cls, planned: Planned) -> Self:
        """From the engine's."""
        return cls(
            id=planned.id,
            verb=planned.verb.value,
            eligible=planned.eligible,
            ids=list(planned.ids),
            skipped={reason: list(ids) for reason, ids in planned.skipped.items()},
            money=dict(planned.money),
            more=planned.more,
            oldest=planned.oldest,
            sample=[Sample.of(row) for row in planned.sample],
            expires_at=planned.expires_at,
        )


class Operation(BaseModel):
    """An operation as it stands. `ended`: how the effects came to rest; `skipped`: since the start, by reason."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(examples=[_ID])
    verb: str
    state: str = Field(description="planned, running, paused, done, stopped or cancelled")
    total: int
    waiting: int
    done: int
    skipped: dict[str, int]
    ended: dict[str, int]
    money: dict[str, int]
    more: bool
    selector: dict[str, Any]
    planned_by: str
    planned_at: datetime
    expires_at: datetime
    expired: bool
    reason: str | None
    started_by: str | None
    started_at: datetime | None
    per_second: float | None
    canary: int
    failures_max: int | None
    batch: int
    paused_at: datetime | None
    stop_reason: str | None
    finished_at: datetime | None

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """From the engine's."""
        return cls.model_validate(progress.document())


class Operations(BaseModel):
    """Operations, newest first."""

    operations: list[Operation]


class Item(BaseModel):
    """One effect of a frozen set, as it was seen and what became of it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    position: int
    effect_id: str
    seen_state: str
    result: str = Field(description="waiting, done or skipped")
    why: str | None = None
    ended: str | None = None
    state: str | None = Field(None, description="how it stands now")


class Items(BaseModel):
    """The set in its order; ask for the next page `after` the last position."""

    items: list[Item]


class Note(BaseModel):
    """What somebody wrote about a group."""

    note: str
    author: str
    at: datetime


class Group(BaseModel):
    """What fails in the same way. `error` is without what is particular to one effect; `sample`: some ids."""

    model_config = ConfigDict(extra="ignore", from_attributes=True)

    id: str = Field(examples=["0f3a9c1b2d4e"])
    kind: str
    state: str
    reason: str
    error: str
    code: str = Field(description="the provider's own word for the error, or its status; may be empty")
    error_class: str = Field(description="what sort of trouble it is", examples=["access", "no answer", "provider"])
    count: int
    money: dict[str, int]
    first_seen: datetime
    last_seen: datetime
    sample: list[str]
    notes: list[Note]


class Groups(BaseModel):
    """Groups of failures, largest first."""

    groups: list[Group]


class Stats(BaseModel):
    """What waits, by where it stands, and how long the oldest has waited (seconds; null when there is none)."""

    fresh: int = Field(description="never published")
    later: int = Field(description="retries, scheduled, or waiting for another effect")
    published: int
    parked: int
    unknown: int
    awaiting: int
    executing: int
    unclaimed: int = Field(description="delivered again and again, and no worker takes it")
    oldest_unpublished_seconds: float | None
    oldest_unknown_seconds: float | None
    oldest_parked_seconds: float | None
    oldest_unsettled_seconds: float | None
