"""A lease that keeps what a provider tells it, for tests that need no database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.effect import Attempt, HorizonPassed, LeaseLost, Policy
from service.core.state import State


class KeptLease:
    """Holds for `seconds`; may be lost at the n-th guard, and may be past every horizon."""

    def __init__(self, seconds: float = 10.0, *, lost_at: int | None = None, past_horizon: bool = False) -> None:
        self.seconds = seconds
        self.lost_at = lost_at
        self.past_horizon = past_horizon
        self.guards = 0
        self.records: list[dict[str, Any]] = []

    def guard(self, *, horizon_seconds: float | None = None) -> None:
        self.guards += 1
        if self.guards == self.lost_at:
            raise LeaseLost
        if horizon_seconds is not None and self.past_horizon:
            raise HorizonPassed

    def record(self, progress: Mapping[str, Any]) -> None:
        self.records.append(dict(progress))

    def seconds_left(self) -> float:
        return self.seconds


def attempt(effect_id: str, request: Mapping[str, Any], *, kind: str = "charge", **more: Any) -> Attempt:
    known: dict[str, Any] = {
        "tenant": "default",
        "number": 1,
        "prior": State.PENDING,
        "in_doubt": False,
        "sent_age_seconds": 0.0,
        "tries": 1,
        "waited_seconds": 1.0,
        "progress": {},
        "policy": Policy.AT_MOST_ONCE,
        "dedupe_key": effect_id,
        "context": {},
    }
    return Attempt(id=effect_id, kind=kind, request=request, **{**known, **more})


def again(first: Attempt, lease: KeptLease, **more: Any) -> Attempt:
    """The attempt after `first` died or learned nothing: it knows what was recorded, and that it is in doubt."""
    progress = {**first.progress, **{name: value for record in lease.records for name, value in record.items()}}
    known: dict[str, Any] = {"number": first.number + 1, "prior": State.UNKNOWN, "in_doubt": True, "progress": progress}
    fields = {name: getattr(first, name) for name in Attempt.__slots__}
    return Attempt(**{**fields, **known, **more})
