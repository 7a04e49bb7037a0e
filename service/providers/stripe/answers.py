"""What an answer of Stripe proves: one pure function from facts to an `Outcome`, or to what is to be done next.

*Own* answers (an object, a card error, anything replayed) come from the endpoint or the idempotency layer for
our key and settle. *Front* answers (429, 401, 409 in progress) were given before that layer: they say this send did
nothing and nothing at all about an earlier one. Whatever has no line here is `Unknown`
(Stripe: Idempotent requests; Advanced error handling; Error codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.outcome import Contradiction, Deferred, Outcome, Unknown
from service.providers.stripe.reply import READS, Reply, Sent, Step
from service.providers.stripe.statuses import (
    Expectation,
    Expected,
    ExpectedCancel,
    ExpectedCapture,
    ExpectedRefund,
    Next,
    declined,
    read_object,
    unsettled,
)

__all__ = [
    "READS",
    "Expectation",
    "Expected",
    "ExpectedCancel",
    "ExpectedCapture",
    "ExpectedRefund",
    "Next",
    "Reply",
    "Sent",
    "Step",
    "classify",
    "otherwise",
]

ACCESS_SECONDS = 60.0  # 401 and 403 need a person to change the key; a minute keeps the noise down
IN_PROGRESS_SECONDS = 2.0  # Stripe still works on the first request; sooner meets the same 409
# A stored 500 is repeated until Stripe forgets the key; their repair, if any, takes hours. Half an hour, times the
# budget of sixty attempts, outlasts the 24 hours (Stripe: Advanced error handling).
STORED_500_SECONDS = 1800.0
_ONCE_BY_THEMSELVES = frozenset({Step.CONFIRM, Step.CAPTURE, Step.CANCEL})
"""A PaymentIntent succeeds, is captured and is canceled at most once, whatever the keys: a refusal may mean "done"."""


def classify(reply: Reply, expected: Expectation) -> Outcome | Next:  # noqa: PLR0911 - one case a line of the design
    """The outcome of one call, or what follows from it."""
    if reply.sent is Sent.NOT_SENT:
        return Deferred(f"not_sent_{reply.reason}", evidence=reply.evidence())
    if reply.sent is Sent.MAYBE or reply.status is None:
        return unsettled(reply, f"no_answer_{reply.reason}")
    if 200 <= reply.status < 300:
        return read_object(reply, expected)
    front = _front(reply)
    if front is not None:
        return front
    if reply.status in (400, 402, 404) and reply.error is not None:
        return _refusal(reply, reply.error, expected)
    if reply.status == 500 and reply.replayed:
        return otherwise(reply, expected) if reply.step in READS | _ONCE_BY_THEMSELVES else Next.LOOK
    return unsettled(reply, f"status_{reply.status}")  # 424, 5xx, redirects: may be done, may be stored


def otherwise(reply: Reply, expected: Expectation) -> Outcome:
    """What `Next.LOOK` means when looking finds nothing: a refusal stands, a stored 500 stays open."""
    if reply.status == 500:
        return unsettled(reply, "status_500", STORED_500_SECONDS)
    return declined(reply.error or {}, expected.intent, reply.evidence())


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


def _refusal(  # noqa: PLR0911 - one case a line of the design
    reply: Reply, error: Mapping[str, Any], expected: Expectation
) -> Outcome | Next:
    code = error.get("code")
    if error.get("type") == "idempotency_error":
        # Our key with other parameters: a bug of ours, and the first request's fate is open. Never another key (I6).
        return Contradiction("idempotency_error", evidence=reply.evidence())
    if reply.step is Step.RETRIEVE:
        # We hold this id from an own answer: another account, another mode, or a wrong record.
        missing = "refund_missing" if isinstance(expected, ExpectedRefund) else "payment_intent_missing"
        return Contradiction(missing, evidence=reply.evidence())
    if reply.step is Step.LOOK_UP:
        return unsettled(reply, "refused")
    if code == "payment_intent_unexpected_state" and reply.step in _ONCE_BY_THEMSELVES:
        return Next.LOOK  # probably done before: the PaymentIntent itself knows
    if reply.step is Step.REFUND and (code == "charge_already_refunded" or error.get("param") == "amount"):
        return Next.LOOK  # nothing left to give back: perhaps because our own refund took it
    if reply.status == 402:
        return declined(error, expected.intent, reply.evidence())
    if reply.in_doubt and not reply.replayed:
        return Unknown("refused_in_front", reply.evidence())  # says nothing about the send before it
    return declined(error, expected.intent, reply.evidence())
