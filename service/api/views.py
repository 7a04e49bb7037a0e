"""What the API answers: typed, without the request, which may hold addresses and names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from service.api.problems import ProblemDocument
from service.core.state import FINAL, State

_ID = "019a2f6e-0000-7000-8000-000000000017"


class Accepted(BaseModel):
    """An effect is on the books. `created` is false when the key was accepted before."""

    id: str = Field(examples=[_ID])
    kind: str = Field(examples=["charge"])
    state: State
    created: bool


class Effect(BaseModel):
    """One effect as it stands. `outcome` is there once `final` is true; `in_doubt`: it may have been carried out."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(examples=[_ID])
    kind: str = Field(examples=["charge"])
    state: State
    final: bool
    in_doubt: bool
    dedupe_key: str = Field(examples=["order:17:charge"])
    attempt: int = Field(description="attempts so far")
    amount: int | None = Field(None, description="minor units", examples=[4200])
    currency: str | None = Field(None, examples=["eur"])
    provider: str | None = None
    provider_ref: str | None = Field(None, examples=["pi_3"])
    outcome: dict[str, Any] | None = None
    caused_by: str | None = Field(None, description="the effect whose success asked for this one")
    concerns: str | None = Field(None, description="the charge that this one acts upon, and does not begin before")
    not_before: datetime | None = Field(None, description="no attempt starts earlier")
    parked_reason: str | None = None
    created_at: datetime
    settled_at: datetime | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the store."""
        return cls.model_validate({**row, "final": row["state"] in FINAL})


class Outcome(Accepted):
    """The answer to a request that waited for its outcome: what was accepted, and how it stands."""

    effect: Effect | None = None


class BatchItem(BaseModel):
    """What became of one item: accepted (202) with its effect, or refused with a problem."""

    index: int
    status: int = Field(description="what the item would have been answered by itself", examples=[202])
    id: str | None = Field(None, examples=[_ID])
    kind: str | None = None
    state: State | None = None
    created: bool | None = None
    problem: ProblemDocument | None = None


class Batch(BaseModel):
    """The results of a batch, in the order of its items."""

    created: int = Field(description="effects that are new")
    replayed: int = Field(description="effects that were accepted before")
    refused: int = Field(description="items with a problem; 0 when the batch was atomic")
    results: list[BatchItem]


class Event(BaseModel):
    """One fact about an effect, in the order they happened."""

    at: datetime
    fact: str = Field(examples=["accepted"])
    attempt: int
    actor: str = Field(description="which process, key or person", examples=["worker-1:4711"])
    evidence: dict[str, Any] = Field(description="status, request id, reason: whatever proves it")


class Events(BaseModel):
    """The journal of one effect, oldest first; `more`: it is longer than what is shown."""

    events: list[Event]
    more: bool


class Page(BaseModel):
    """Effects, newest first; `next` is the path of the following page, if there is one."""

    effects: list[Effect]
    next: str | None = None


class Health(BaseModel):
    """`status` is `ok`, or a sentence about what is missing."""

    status: str = Field(examples=["ok"])
