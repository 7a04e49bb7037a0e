"""What becomes of an authorised charge: its money is captured once, or the hold is released.

A PaymentIntent is captured at most once and canceled for good, whatever the keys (Stripe: Place a hold on a payment
method). So an attempt in doubt looks first and may then send again, beyond the horizon too. The capture leaves its mark
on the PaymentIntent, which tells later whose capture took the money.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from service.core.effect import Attempt, Lease
from service.core.outcome import Outcome, Unknown
from service.core.state import State
from service.providers.stripe.answers import ExpectedCancel, ExpectedCapture, Next, Reply, Step, classify
from service.providers.stripe.api import Call
from service.providers.stripe.attempt import StripeAttempt, StripeProvider, intent_of
from service.providers.stripe.marks import CAPTURE_EFFECT_ID


class StripeCaptures(StripeProvider):
    """The provider of kind `capture`; the request names a charge effect, which the attempt brings along."""

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Take the money, once. Raises LeaseLost, having sent nothing."""
        intent = intent_of(attempt, settled=False)
        return _Capture(self, attempt, lease, intent).run() if isinstance(intent, str) else intent

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask the charge's PaymentIntent whose capture took the money."""
        intent = intent_of(attempt, settled=False)
        if not isinstance(intent, str):
            return Unknown("not_found", intent.evidence)
        reply = self.api.retrieve(intent, Call(seconds, lambda: None), in_doubt=True)
        result = classify(reply, capture_of(attempt, intent, livemode=self.livemode))
        return Unknown("not_captured", reply.evidence()) if isinstance(result, Next) else result


class StripeCancels(StripeProvider):
    """The provider of kind `cancel`; the request names a charge effect, which the attempt brings along."""

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """End the charge and release what it held. Raises LeaseLost, having sent nothing."""
        intent = intent_of(attempt, settled=False)
        return _Cancel(self, attempt, lease, intent).run() if isinstance(intent, str) else intent

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask the charge's PaymentIntent whether it is canceled."""
        intent = intent_of(attempt, settled=False)
        if not isinstance(intent, str):
            return Unknown("not_found", intent.evidence)
        reply = self.api.retrieve(intent, Call(seconds, lambda: None), in_doubt=True)
        result = classify(reply, cancel_of(attempt, intent, livemode=self.livemode))
        return Unknown("not_canceled", reply.evidence()) if isinstance(result, Next) else result


class _OnIntent(StripeAttempt, ABC):
    """One attempt at something that happens to a PaymentIntent at most once."""

    def __init__(self, provider: StripeProvider, attempt: Attempt, lease: Lease, intent: str) -> None:
        super().__init__(provider, attempt, lease)
        self.intent = intent
        self.wanted: ExpectedCapture | ExpectedCancel = self.expect()

    @abstractmethod
    def expect(self) -> ExpectedCapture | ExpectedCancel:
        """What the PaymentIntent must say of itself."""

    @abstractmethod
    def send(self) -> Reply:
        """The call that does it."""

    def run(self) -> Outcome:
        """In doubt, or when the charge is final already, look before anything is sent."""
        charge = self.attempt.concerned
        if self.doubt or (charge is not None and charge.state in (State.SUCCEEDED, State.FAILED)):
            _, seen = self._look()
            if not isinstance(seen, Next):
                return seen
        reply = self.send()
        result = classify(reply, self.wanted)
        if not isinstance(result, Next):
            return result
        looked, seen = self._look()
        # Stripe says at once "cannot be done" and "is not done": another attempt will see clearer.
        return Unknown("unexpected_status", looked.evidence()) if isinstance(seen, Next) else seen

    def _look(self) -> tuple[Reply, Outcome | Next]:
        reply = self.api.retrieve(self.intent, self.call(), in_doubt=self.doubt)
        return reply, classify(reply, self.wanted)


class _Capture(_OnIntent):
    """One attempt at one capture."""

    def expect(self) -> ExpectedCapture:
        """The charge's PaymentIntent, with our mark once the money is taken."""
        return capture_of(self.attempt, self.intent, livemode=self.livemode)

    def send(self) -> Reply:
        """Take the money."""
        params, key = capture_params(self.attempt), self.key(Step.CAPTURE)
        return self.api.capture(self.intent, params, key, self.call(), in_doubt=self.doubt)


class _Cancel(_OnIntent):
    """One attempt at one cancellation."""

    def expect(self) -> ExpectedCancel:
        """The charge's PaymentIntent."""
        return cancel_of(self.attempt, self.intent, livemode=self.livemode)

    def send(self) -> Reply:
        """Release the hold."""
        params, key = cancel_params(self.attempt), self.key(Step.CANCEL)
        return self.api.cancel(self.intent, params, key, self.call(), in_doubt=self.doubt)


def capture_of(attempt: Attempt, intent: str, *, livemode: bool) -> ExpectedCapture:
    """What the PaymentIntent must echo to a capture."""
    request, charge = attempt.request, attempt.concerned
    of = (charge.mark or charge.id) if charge else ""
    return ExpectedCapture(attempt.id, of, request["amount"], request["currency"], livemode, intent)


def cancel_of(attempt: Attempt, intent: str, *, livemode: bool) -> ExpectedCancel:
    """What the PaymentIntent must echo to a cancellation."""
    charge = attempt.concerned
    of = (charge.mark or charge.id) if charge else ""
    return ExpectedCancel(attempt.id, of, livemode, intent)


def capture_params(attempt: Attempt) -> dict[str, Any]:
    """The parameters, in one order for ever (I6); Stripe merges the mark into the charge's metadata (Metadata)."""
    return {"amount_to_capture": attempt.request["amount"], "metadata": {CAPTURE_EFFECT_ID: attempt.id}}


def cancel_params(attempt: Attempt) -> dict[str, Any]:
    """The parameters: Stripe's own word for the reason, if the caller gave one."""
    reason = attempt.request.get("reason")
    return {} if reason is None else {"cancellation_reason": reason}
