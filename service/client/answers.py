"""What the API answers, as types. A member that a newer server adds is ignored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["pending", "executing", "awaiting", "unknown", "parked", "succeeded", "failed"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Problem(_Answer):
    """A problem (RFC 9457). `retryable`: as it is; `safe_new_key`: a new key cannot make a second effect."""

    code: str
    status: int
    title: str = ""
    detail: str = ""
    type: str = "about:blank"
    retryable: bool = False
    safe_new_key: bool = False
    field: str | None = None
    errors: list[dict[str, Any]] = Field(default_factory=list)
    effect_id: str | None = None
    effect_state: str | None = None
    request_id: str | None = None


class Effect(_Answer):
    """One effect as it stands. `outcome` is there once `final` is true."""

    id: str
    kind: str
    state: State
    final: bool
    in_doubt: bool
    dedupe_key: str
    attempt: int = 0
    amount: int | None = None
    currency: str | None = None
    provider: str | None = None
    provider_ref: str | None = None
    outcome: dict[str, Any] | None = None
    caused_by: str | None = None
    concerns: str | None = None
    not_before: str | None = None
    parked_reason: str | None = None
    created_at: str
    settled_at: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the provider has it."""
        return self.state == "succeeded"


class Accepted(_Answer):
    """An effect is on the books. `created` is false when the key was there before; `effect` after a wait."""

    id: str
    kind: str
    state: State
    created: bool
    effect: Effect | None = None


class Page(_Answer):
    """Effects, and the path of those that follow."""

    effects: list[Effect]
    next: str | None = None


class Event(_Answer):
    """One fact of an effect's journal."""

    at: str
    fact: str
    attempt: int
    actor: str
    evidence: dict[str, Any] = Field(default_factory=dict)


class BatchItem(_Answer):
    """What became of one item: an effect, or a problem."""

    index: int
    status: int
    id: str | None = None
    kind: str | None = None
    state: State | None = None
    created: bool | None = None
    problem: Problem | None = None


class Batch(_Answer):
    """The results of a batch, in the order of its items."""

    created: int
    replayed: int
    refused: int
    results: list[BatchItem]


class Plan(_Answer):
    """The frozen set of an operation that nobody has started yet."""

    id: str
    verb: str
    eligible: int
    ids: list[str]
    skipped: dict[str, list[str]]
    money: dict[str, int]
    more: bool
    oldest: str | None = None
    sample: list[dict[str, Any]] = Field(default_factory=list)
    expires_at: str


class Operation(_Answer):
    """An operation as it stands."""

    id: str
    verb: str
    state: Literal["planned", "running", "paused", "done", "stopped", "cancelled"]
    total: int
    waiting: int
    done: int
    skipped: dict[str, int]
    ended: dict[str, int]
    money: dict[str, int]
    planned_by: str
    reason: str | None = None
    started_by: str | None = None
    stop_reason: str | None = None
    finished_at: str | None = None


class Item(_Answer):
    """One effect of an operation's set, and what became of it."""

    position: int
    effect_id: str
    seen_state: str
    result: Literal["waiting", "done", "skipped"]
    why: str | None = None
    ended: str | None = None


class Group(_Answer):
    """What fails in the same way."""

    id: str
    kind: str
    state: str
    reason: str
    error: str
    code: str = ""  # a server of before does not tell
    error_class: str = ""
    count: int
    money: dict[str, int]
    sample: list[str]
    notes: list[dict[str, Any]]
