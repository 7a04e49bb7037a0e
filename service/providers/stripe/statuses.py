"""What the status of an object at Stripe means for the effect that asked for it: a charge, refund, capture or cancel.

Every object is first compared with what it must say of itself: a shared socket, a reused key or a wrong account would
show there (Stripe: How PaymentIntents work; Refunds; Place a hold on a payment method).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.stripe.marks import CAPTURE_EFFECT_ID, mark_of
from service.providers.stripe.reply import READS, Reply, Step

# Accepted, result later: a bank debit settles in hours to days, a customer at the bank's page takes minutes; a hold
# waits for its capture for days, and the capture wakes the charge itself.
AWAITED_SECONDS = {"processing": 60.0, "requires_action": 300.0, "requires_capture": 3600.0}
# A refund waits for the bank, or for the customer to name an account: hours to days.
REFUND_AWAITED_SECONDS = {"pending": 600.0, "requires_action": 3600.0}
_CANCELABLE = frozenset(
    ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing")
)


class Next(Enum):
    """The answer is no outcome yet: what to do now."""

    SEND = "send"
    """It is not done: send the call that does it."""
    LOOK = "look"
    """It may be done, and this call will never say: ask for the object itself."""
    READ = "read"
    """A list, which only its reader can judge."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a PaymentIntent of a charge must say of itself; `intent` is its id once we know it."""

    effect_id: str
    amount: int
    currency: str
    livemode: bool
    intent: str | None = None
    manual: bool = False

    def echoed_by(self, intent: Mapping[str, Any]) -> bool:
        """Whether this PaymentIntent is ours."""
        return (
            mark_of(intent) == self.effect_id
            and intent.get("amount") == self.amount
            and intent.get("currency") == self.currency
            and intent.get("livemode") is self.livemode
            and isinstance(intent.get("id"), str)
            and self.intent in (None, intent["id"])
        )


@dataclass(frozen=True, slots=True)
class ExpectedRefund:
    """What a refund must say of itself; `intent` is the PaymentIntent it gives back, `refund` its id once known."""

    effect_id: str
    amount: int
    currency: str
    intent: str
    refund: str | None = None

    def echoed_by(self, refund: Mapping[str, Any]) -> bool:
        """Whether this refund is ours."""
        return (
            mark_of(refund) == self.effect_id
            and refund.get("amount") == self.amount
            and refund.get("currency") == self.currency
            and refund.get("payment_intent") == self.intent
            and isinstance(refund.get("id"), str)
            and self.refund in (None, refund["id"])
        )


@dataclass(frozen=True, slots=True)
class ExpectedCapture:
    """What the PaymentIntent of the charge `charge` must say before and after this effect took its money."""

    effect_id: str
    charge: str
    amount: int
    currency: str
    livemode: bool
    intent: str

    def echoed_by(self, intent: Mapping[str, Any]) -> bool:
        """Whether this is the PaymentIntent to capture."""
        return _of_charge(intent, self.charge, self.intent, self.livemode) and intent.get("currency") == self.currency


@dataclass(frozen=True, slots=True)
class ExpectedCancel:
    """What the PaymentIntent of the charge `charge` must say of itself."""

    effect_id: str
    charge: str
    livemode: bool
    intent: str

    def echoed_by(self, intent: Mapping[str, Any]) -> bool:
        """Whether this is the PaymentIntent to cancel."""
        return _of_charge(intent, self.charge, self.intent, self.livemode)


Expectation = Expected | ExpectedRefund | ExpectedCapture | ExpectedCancel


def _of_charge(intent: Mapping[str, Any], charge: str, ref: str, livemode: bool) -> bool:
    return mark_of(intent) == charge and intent.get("id") == ref and intent.get("livemode") is livemode


def unsettled(reply: Reply, reason: str, after_seconds: float | None = None) -> Outcome:
    """A read without result did nothing, so it leaves the effect as it was; any other call may have been done."""
    if reply.step in READS:
        return Deferred(f"look_up_{reason}", reply.retry_after, evidence=reply.evidence())
    return Unknown(reason, reply.evidence(), after_seconds)


def read_object(reply: Reply, expected: Expectation) -> Outcome | Next:  # noqa: PLR0911 - one case a line of the design
    """What the object of a 2xx proves."""
    thing = reply.body
    if thing is None:
        return unsettled(reply, "unreadable")  # very likely done; the same key brings the answer again
    if reply.step is Step.LOOK_UP and thing.get("object") in ("list", "search_result"):
        return Next.READ
    if not expected.echoed_by(thing):
        return Contradiction("echo_mismatch", evidence=reply.evidence())
    match expected:
        case Expected():
            return _charge(reply, thing, expected)
        case ExpectedRefund():
            return _refund(reply, thing)
        case ExpectedCapture():
            return _capture(reply, thing, expected)
        case ExpectedCancel():
            return _cancel(reply, thing, expected)


def _charge(reply: Reply, intent: Mapping[str, Any], expected: Expected) -> Outcome | Next:
    status, ref = intent.get("status"), str(intent["id"])
    detail = _detail(intent, manual=expected.manual)
    if status == "succeeded":
        return Succeeded(ref, detail=detail, evidence=reply.found())
    if status == "requires_capture" and not expected.manual:
        # We did not ask for a manual capture: money is held and this effect has no way to take it.
        return Contradiction("requires_capture", evidence=reply.evidence())
    if status in AWAITED_SECONDS:
        return Awaiting(str(status), ref, AWAITED_SECONDS[status], detail=detail, evidence=reply.found())
    if status == "canceled":
        return Failed("canceled", "the PaymentIntent was canceled", detail=detail, evidence=reply.found())
    return _unconfirmed(reply, intent)


def _unconfirmed(reply: Reply, intent: Mapping[str, Any]) -> Outcome | Next:
    status, error = intent.get("status"), intent.get("last_payment_error")
    if status == "requires_payment_method" and isinstance(error, Mapping):
        return declined(error, str(intent["id"]), reply.found())
    if reply.step is Step.CREATE and status in ("requires_confirmation", "requires_payment_method"):
        return Next.SEND
    if reply.step in READS and status == "requires_confirmation":
        return Next.SEND
    return unsettled(reply, "unexpected_status")


def _refund(reply: Reply, refund: Mapping[str, Any]) -> Outcome:
    status, ref = refund.get("status"), str(refund["id"])
    names = ("charge", "payment_intent", "amount", "currency", "status", "failure_reason")
    detail = {"refund": ref, **{name: refund[name] for name in names if refund.get(name) is not None}}
    if status == "succeeded":
        return Succeeded(ref, detail=detail, evidence=reply.found())
    if status in REFUND_AWAITED_SECONDS:
        return Awaiting(str(status), ref, REFUND_AWAITED_SECONDS[status], detail=detail, evidence=reply.found())
    if status in ("failed", "canceled"):
        return Failed(f"refund_{status}", f"the refund was {status}", detail=detail, evidence=reply.found())
    return unsettled(reply, "unexpected_status")


def _capture(  # noqa: PLR0911 - one case a line of the design
    reply: Reply, intent: Mapping[str, Any], expected: ExpectedCapture
) -> Outcome | Next:
    status, detail = intent.get("status"), _detail(intent, manual=True)
    ours = mark_of(intent, CAPTURE_EFFECT_ID) == expected.effect_id
    if status == "succeeded" and not ours and reply.step in READS:
        return Failed("already_captured", "another capture took the money", detail=detail, evidence=reply.evidence())
    if status == "succeeded":
        ref = detail["charge"]
        if not ours or intent.get("amount_received") != expected.amount or not isinstance(ref, str):
            return Contradiction("echo_mismatch", evidence=reply.evidence())
        return Succeeded(ref, detail=detail, evidence=reply.found())
    if status == "canceled":
        return Failed("canceled", "the PaymentIntent was canceled", detail=detail, evidence=reply.evidence())
    if status == "processing":
        return Awaiting("processing", None, AWAITED_SECONDS["processing"], detail=detail, evidence=reply.found())
    if status == "requires_capture" and reply.step in READS:
        return Next.SEND
    return unsettled(reply, "unexpected_status")


def _cancel(reply: Reply, intent: Mapping[str, Any], expected: ExpectedCancel) -> Outcome | Next:
    status, detail = intent.get("status"), _detail(intent, manual=True)
    if status == "canceled":
        # Not the charge's own reference, which is unique. Whoever finds that another one was first adds his own id.
        ref = f"{expected.intent}:canceled"
        first = reply.step not in READS or reply.in_doubt
        return Succeeded(ref if first else f"{ref}:{expected.effect_id}", detail=detail, evidence=reply.found())
    if status == "succeeded":
        return Failed("already_captured", "the money has been taken: refund it", detail, reply.evidence())
    if status in _CANCELABLE and reply.step in READS:
        return Next.SEND
    return unsettled(reply, "unexpected_status")


def declined(error: Mapping[str, Any], intent: str | None, evidence: Mapping[str, Any]) -> Failed:
    """A refusal with Stripe's own codes, from an error or from a PaymentIntent's `last_payment_error`."""
    code = str(error.get("code") or error.get("type") or "refused")
    embedded = error.get("payment_intent")
    ref = intent or (embedded.get("id") if isinstance(embedded, Mapping) else None)
    names = ("decline_code", "advice_code", "network_decline_code", "charge", "param")
    detail = {name: error[name] for name in names if isinstance(error.get(name), str)}
    return Failed(
        code,
        str(error.get("message") or "Stripe refused it"),
        detail={"code": code, **detail, **({"payment_intent": ref} if ref else {})},
        evidence=evidence,
    )


def _detail(intent: Mapping[str, Any], *, manual: bool) -> dict[str, Any]:
    charge = intent.get("latest_charge")
    detail = {
        "payment_intent": intent["id"],
        "charge": charge.get("id") if isinstance(charge, Mapping) else charge,
        "amount": intent.get("amount"),
        "currency": intent.get("currency"),
        "status": intent.get("status"),
    }
    return {**detail, "amount_received": intent.get("amount_received")} if manual else detail
