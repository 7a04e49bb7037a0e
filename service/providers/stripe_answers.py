"""What an answer of Stripe proves: one pure function from facts to an `Outcome`, or to the next step of the charge.

*Own* answers (a PaymentIntent, a card error, anything replayed) come from the endpoint or the idempotency layer for
our key and settle. *Front* answers (429, 401, 409 in progress) were given before that layer: they say this send did
nothing and nothing at all about an earlier one. Whatever has no line here is `Unknown`
(Stripe: Idempotent requests; Advanced error handling; Error codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown

ACCESS_SECONDS = 60.0  # 401 and 403 need a person to change the key; a minute keeps the noise down
IN_PROGRESS_SECONDS = 2.0  # Stripe still works on the first request; sooner meets the same 409
# Accepted, result later: a bank debit settles in hours to days, a customer at the bank's page takes minutes.
AWAITED_SECONDS = {"processing": 60.0, "requires_action": 300.0}


class Step(StrEnum):
    """A call of a charge. Only `confirm` moves money; `retrieve` has no effect at all."""

    CREATE = "create"
    CONFIRM = "confirm"
    RETRIEVE = "retrieve"


class Sent(StrEnum):
    """How far the request got."""

    NOT_SENT = "not_sent"
    MAYBE = "maybe"
    ANSWERED = "answered"


class Next(Enum):
    """The answer is no outcome yet: what to call now."""

    CONFIRM = "confirm"
    LOOK = "look"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a PaymentIntent of ours must say of itself; `intent` is its id once we know it."""

    effect_id: str
    amount: int
    currency: str
    livemode: bool
    intent: str | None = None

    def echoed_by(self, intent: Mapping[str, Any]) -> bool:
        """Whether this PaymentIntent is ours: a shared socket, a reused key or a wrong account would show here."""
        metadata = intent.get("metadata")
        return (
            isinstance(metadata, Mapping)
            and metadata.get("effect_id") == self.effect_id
            and intent.get("amount") == self.amount
            and intent.get("currency") == self.currency
            and intent.get("livemode") is self.livemode
            and isinstance(intent.get("id"), str)
            and self.intent in (None, intent["id"])
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The facts of one call, and nothing the SDK concluded from them.

    `in_doubt`: an earlier send of this step may have been carried out. `intent` is the PaymentIntent of a 2xx,
    `error` Stripe's error object, each None when the body is not what it should be.
    """

    step: Step
    sent: Sent
    in_doubt: bool = False
    reason: str = ""
    status: int | None = None
    intent: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    replayed: bool = False
    request_id: str | None = None
    retry_after: float | None = None

    def evidence(self) -> dict[str, Any]:
        """What the journal keeps: no payload, no card, no address."""
        code = self.error.get("code") or self.error.get("type") if self.error else None
        facts = {"status": self.status, "request_id": self.request_id, "code": code, "reason": self.reason or None}
        return {"step": self.step.value, "replayed": self.replayed, **{k: v for k, v in facts.items() if v is not None}}


def classify(reply: Reply, expected: Expected) -> Outcome | Next:
    """The outcome of one call, or the step that follows."""
    if reply.sent is Sent.NOT_SENT:
        return Deferred(f"not_sent_{reply.reason}", evidence=reply.evidence())
    if reply.sent is Sent.MAYBE or reply.status is None:
        return _unknown(reply, f"no_answer_{reply.reason}")
    if 200 <= reply.status < 300:
        return _intent(reply, expected)
    front = _front(reply)
    if front is not None:
        return front
    if reply.status in (400, 402, 404) and reply.error is not None:
        return _refusal(reply, reply.error, expected)
    return _unknown(reply, f"status_{reply.status}")  # 424, 5xx, redirects: may be done, may be stored


def _unknown(reply: Reply, reason: str) -> Outcome:
    """A look-up without result did nothing, so it leaves the effect as it was; any other call may have been done."""
    if reply.step is Step.RETRIEVE:
        return Deferred(f"look_up_{reason}", reply.retry_after, evidence=reply.evidence())
    return Unknown(reason, evidence=reply.evidence())


def _front(reply: Reply) -> Outcome | None:
    """Answers given in front of the idempotency layer, told by status and code, never by type."""
    code = reply.error.get("code") if reply.error else None
    if reply.status == 409 or code == "idempotency_key_in_use":
        wait = max(IN_PROGRESS_SECONDS, reply.retry_after or 0.0)
        return Deferred("in_progress", wait, evidence=reply.evidence())
    if reply.status == 429 or code in ("rate_limit", "lock_timeout"):
        return Deferred("rate_limited", reply.retry_after, evidence=reply.evidence())
    if reply.status in (401, 403):
        return Deferred("access_refused", ACCESS_SECONDS, evidence=reply.evidence())
    return None


def _refusal(reply: Reply, error: Mapping[str, Any], expected: Expected) -> Outcome | Next:
    code = error.get("code")
    if error.get("type") == "idempotency_error":
        # Our key with other parameters: a bug of ours, and the first request's fate is open. Never another key (I6).
        return Contradiction("idempotency_error", evidence=reply.evidence())
    if reply.step is Step.RETRIEVE:
        # We hold this id from an own answer: another account, another mode, or a wrong record.
        return Contradiction("payment_intent_missing", evidence=reply.evidence())
    if code == "payment_intent_unexpected_state" and reply.step is Step.CONFIRM:
        return Next.LOOK  # probably confirmed before: the intent itself knows
    if reply.status == 402:
        return declined(error, expected.intent, reply.evidence())
    if reply.in_doubt and not reply.replayed:
        return _unknown(reply, "refused_in_front")  # says nothing about the send before it
    return declined(error, expected.intent, reply.evidence())


def declined(error: Mapping[str, Any], intent: str | None, evidence: Mapping[str, Any]) -> Failed:
    """A refusal with Stripe's own codes, from an error or from a PaymentIntent's `last_payment_error`."""
    code = str(error.get("code") or error.get("type") or "refused")
    embedded = error.get("payment_intent")
    ref = intent or (embedded.get("id") if isinstance(embedded, Mapping) else None)
    names = ("decline_code", "advice_code", "network_decline_code", "charge", "param")
    detail = {name: error[name] for name in names if isinstance(error.get(name), str)}
    return Failed(
        code,
        str(error.get("message") or "Stripe refused the charge"),
        detail={"code": code, **detail, **({"payment_intent": ref} if ref else {})},
        evidence=evidence,
    )


def _intent(reply: Reply, expected: Expected) -> Outcome | Next:
    intent = reply.intent
    if intent is None:
        return _unknown(reply, "unreadable")  # very likely done; the same key brings the answer again
    if not expected.echoed_by(intent):
        return Contradiction("echo_mismatch", evidence=reply.evidence())
    status, ref = intent.get("status"), str(intent["id"])
    evidence = reply.evidence()
    if status == "succeeded":
        return Succeeded(ref, detail=_detail(intent), evidence=evidence | _adopted(reply))
    if status in AWAITED_SECONDS:
        return Awaiting(str(status), ref, AWAITED_SECONDS[status], detail=_detail(intent), evidence=evidence)
    if status == "canceled":
        return Failed("canceled", "the PaymentIntent was canceled", detail=_detail(intent), evidence=evidence)
    return _unfinished(reply, intent, evidence)


def _unfinished(reply: Reply, intent: Mapping[str, Any], evidence: Mapping[str, Any]) -> Outcome | Next:
    status, error = intent.get("status"), intent.get("last_payment_error")
    if status == "requires_capture":
        # We never ask for a manual capture: money is held and this effect has no way to take it.
        return Contradiction("requires_capture", evidence=evidence)
    if status == "requires_payment_method" and isinstance(error, Mapping):
        return declined(error, str(intent["id"]), {**evidence, **_adopted(reply)})
    if reply.step is Step.CREATE and status in ("requires_confirmation", "requires_payment_method"):
        return Next.CONFIRM
    if reply.step is Step.RETRIEVE and status == "requires_confirmation":
        return Next.CONFIRM
    return _unknown(reply, "unexpected_status")


def _adopted(reply: Reply) -> dict[str, Any]:
    """A result found by looking was made by an earlier send: the journal says so."""
    return {"adopted": True} if reply.step is Step.RETRIEVE else {}


def _detail(intent: Mapping[str, Any]) -> dict[str, Any]:
    charge = intent.get("latest_charge")
    return {
        "payment_intent": intent["id"],
        "charge": charge.get("id") if isinstance(charge, Mapping) else charge,
        "amount": intent["amount"],
        "currency": intent["currency"],
        "status": intent.get("status"),
    }
