"""The facts of one call to Stripe, and nothing the SDK concluded from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Step(StrEnum):
    """A call. `confirm`, `refund` and `capture` move money, `retrieve` and `look_up` have no effect at all."""

    CREATE = "create"
    CONFIRM = "confirm"
    RETRIEVE = "retrieve"
    REFUND = "refund"
    CAPTURE = "capture"
    CANCEL = "cancel"
    LOOK_UP = "look_up"


READS = frozenset({Step.RETRIEVE, Step.LOOK_UP})


class Sent(StrEnum):
    """How far the request got."""

    NOT_SENT = "not_sent"
    MAYBE = "maybe"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call.

    `in_doubt`: an earlier send of this step may have been carried out. `body` is the object of a 2xx that was asked
    for, `error` Stripe's error object, each None when the answer does not hold what it should.
    """

    step: Step
    sent: Sent
    in_doubt: bool = False
    reason: str = ""
    status: int | None = None
    body: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    replayed: bool = False
    request_id: str | None = None
    retry_after: float | None = None

    def evidence(self) -> dict[str, Any]:
        """What the journal keeps: no payload, no card, no address."""
        code = self.error.get("code") or self.error.get("type") if self.error else None
        facts = {"status": self.status, "request_id": self.request_id, "code": code, "reason": self.reason or None}
        return {"step": self.step.value, "replayed": self.replayed, **{k: v for k, v in facts.items() if v is not None}}

    def found(self) -> dict[str, Any]:
        """The evidence of a result; one found by looking was made by an earlier send, and says so."""
        return {**self.evidence(), "adopted": True} if self.step in READS else self.evidence()
