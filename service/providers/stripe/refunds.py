"""A refund at Stripe gives money back at most once: one call under one key, and afterwards only look-ups.

No object stands between two sends: a second partial refund under another key is a second payment. So the key is sent
again inside the horizon only, and not at all once it repeats a 500; then the PaymentIntent's refunds are listed and the
one with our mark is adopted (Stripe: Refunds; Idempotent requests).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from service.core.effect import Attempt, HorizonPassed, Lease, LeaseLost
from service.core.errors import DependencyUnavailable
from service.core.outcome import Deferred, Outcome, Unknown
from service.core.state import State
from service.providers.stripe.answers import (
    STORED_500_SECONDS,
    ExpectedRefund,
    Next,
    Reply,
    Sent,
    Step,
    classify,
    otherwise,
)
from service.providers.stripe.api import Call
from service.providers.stripe.attempt import STORED_500, StripeAttempt, StripeProvider, intent_of
from service.providers.stripe.look_ups import LookUps
from service.providers.stripe.marks import metadata_of, owner_of

REFUND = "refund"
"""The note that protects: the refund's id, as soon as it is known."""


class StripeRefunds(StripeProvider):
    """The provider of kind `refund`; the request names a charge effect, which the attempt brings along."""

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Give the money back. Raises LeaseLost, having sent nothing."""
        intent = intent_of(attempt, settled=True)
        return _Refund(self, attempt, lease, intent).run() if isinstance(intent, str) else intent

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask for the refund: by its recorded id, else among those of the charge's PaymentIntent."""
        intent = intent_of(attempt, settled=True)
        if not isinstance(intent, str):
            # Nothing was sent without one; what that means is for an attempt to say.
            return Unknown("not_found", intent.evidence)
        known = attempt.progress.get(REFUND)
        if isinstance(known, str):
            return _told(self.api.retrieve_refund(known, Call(seconds, lambda: None)), expected(attempt, intent, known))
        found = LookUps(self.api, seconds).refund(attempt, intent, expected(attempt, intent))
        if found is None or isinstance(found, Deferred):
            return found or Unknown("not_found")
        return _told(_seen(found), expected(attempt, intent))


class _Refund(StripeAttempt):
    """One attempt at one refund."""

    def __init__(self, provider: StripeProvider, attempt: Attempt, lease: Lease, intent: str) -> None:
        super().__init__(provider, attempt, lease)
        self._intent = intent

    def run(self) -> Outcome:
        """With a recorded refund look at it; without one send under the key, or look when the key says no more."""
        known = self.noted(REFUND)
        if isinstance(known, str):
            return _told(self.api.retrieve_refund(known, self.call()), expected(self.attempt, self._intent, known))
        if self.attempt.prior is State.AWAITING:
            return self._find()  # Stripe has accepted it, so it is not sent again, whatever became of the note
        if self.doubt and self.noted(STORED_500):
            return self._find(Unknown("status_500", {"step": Step.LOOK_UP.value}, STORED_500_SECONDS))
        self.begin_anew()
        params = refund_params(self.attempt, self._intent)
        try:
            reply = self.api.refund(params, self.key(Step.REFUND), self.call(self.guard_key), in_doubt=self.doubt)
        except HorizonPassed:
            return self._find()
        result = classify(reply, expected(self.attempt, self._intent))
        if isinstance(result, Next):
            return self._find(otherwise(reply, expected(self.attempt, self._intent)))
        self._keep(reply.body, result)
        return result

    def _find(self, before: Outcome | None = None) -> Outcome:
        """`before` is what this attempt has learned already: a refusal stands when none of the refunds is ours."""
        wanted = expected(self.attempt, self._intent)
        found = LookUps(self.api, self.seconds(), self.lease.guard).refund(self.attempt, self._intent, wanted)
        if isinstance(found, Deferred):
            return self.inconclusive(found, before)
        if found is None:
            return self.missed(before) if before is None or isinstance(before, Unknown) else before
        result = _told(_seen(found), wanted)
        self._keep(found, result)
        return result

    def _keep(self, refund: Mapping[str, Any] | None, result: Outcome) -> None:
        """Remember the id. A lost lease, or a database that is away, takes nothing back: the answer is evidence.

        Letting either through would read as "nothing was sent", and a day later the key is forgotten.
        """
        if refund is not None and getattr(result, "ref", None) == refund.get("id"):
            with suppress(LeaseLost, DependencyUnavailable):
                self.note(**{REFUND: refund["id"]})


def _seen(refund: Mapping[str, Any]) -> Reply:
    """A refund found in a list, as the answer to having asked for it."""
    return Reply(Step.LOOK_UP, Sent.ANSWERED, status=200, body=refund)


def _told(reply: Reply, wanted: ExpectedRefund) -> Outcome:
    result = classify(reply, wanted)
    return Unknown("unexpected_status", reply.evidence()) if isinstance(result, Next) else result


def expected(attempt: Attempt, intent: str, refund: str | None = None) -> ExpectedRefund:
    """What the refund must echo."""
    return ExpectedRefund(owner_of(attempt), attempt.request["amount"], attempt.request["currency"], intent, refund)


def refund_params(attempt: Attempt, intent: str) -> dict[str, Any]:
    """The parameters, in one order for ever (I6)."""
    params: dict[str, Any] = {"payment_intent": intent, "amount": attempt.request["amount"]}
    if attempt.request.get("reason") is not None:
        params["reason"] = attempt.request["reason"]
    return {**params, "metadata": metadata_of(attempt)}
