"""A charge at Stripe moves money at most once: create, remember the id, look, and only then confirm.

An unconfirmed PaymentIntent moves nothing, and one PaymentIntent succeeds at most once. Its id is committed before
the first confirm (W11), so that it protects even after Stripe has forgotten our keys. Each step's bytes are a pure
function of the frozen request, its key is made of the effect's id (I6). When the answer to the create was lost, and the
key cannot say more (it repeats a 500, or is too old to be sent), the PaymentIntent is looked for instead.
"""

from __future__ import annotations

from typing import Any

from service.core.effect import Attempt, HorizonPassed, Lease
from service.core.outcome import Deferred, Outcome, Unknown
from service.providers.stripe.answers import STORED_500_SECONDS, Expected, Next, Step, classify, otherwise
from service.providers.stripe.api import Call
from service.providers.stripe.attempt import HORIZON_SECONDS, PLACE, STORED_500, StripeAttempt, StripeProvider
from service.providers.stripe.look_ups import LookUps
from service.providers.stripe.marks import metadata_of, owner_of

__all__ = ["HORIZON_SECONDS", "StripeCharges", "confirm_params", "create_params"]

INTENT = "payment_intent"
"""The note that protects: the PaymentIntent's id."""


class StripeCharges(StripeProvider):
    """The provider of kind `charge`."""

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Carry the charge as far as Stripe lets it go. Raises LeaseLost, having sent nothing after it."""
        return _Charge(self, attempt, lease).run()

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask for the PaymentIntent: by its recorded id, else by customer, key and mark."""
        known = attempt.progress.get(INTENT)
        if not isinstance(known, str):
            found = LookUps(self.api, seconds).intent(attempt, expected(attempt, self.livemode))
            if found is None:
                return Unknown("not_found")
            if isinstance(found, Deferred):
                return found
            known = str(found.get("id"))
        reply = self.api.retrieve(known, Call(seconds, lambda: None))
        result = classify(reply, expected(attempt, self.livemode, known))
        if isinstance(result, Next):
            return Unknown("not_confirmed", evidence={**reply.found(), INTENT: known})
        return result


class _Charge(StripeAttempt):
    """One attempt at one charge."""

    harmless = True  # another create is another unconfirmed intent, and only a recorded one is ever confirmed
    # Stripe shows events of thirty days (Stripe: List all events).
    visible_seconds = 29 * 86400.0

    def run(self) -> Outcome:
        """With a recorded PaymentIntent look first; without one nothing can have been confirmed."""
        known = self.noted(INTENT)
        if isinstance(known, str):
            # An earlier attempt of any kind may have confirmed it; only the intent itself knows.
            return self._look(known, then_confirm=True)
        if self.doubt and self.noted(STORED_500):
            return self._find(Unknown("status_500", {"step": Step.LOOK_UP.value}, STORED_500_SECONDS))
        self.begin_anew()
        try:
            reply = self.api.create(
                create_params(self.attempt), self.key(Step.CREATE), self.call(self.guard_key), in_doubt=self.doubt
            )
        except HorizonPassed:
            # Stripe may have forgotten the key: another create could be a second intent. No confirm ever went out.
            return self._find()
        result = classify(reply, self._expected(None))
        if result is Next.LOOK:
            return self._find(otherwise(reply, self._expected(None)))
        if not isinstance(result, Next):
            return result
        intent = str((reply.body or {})["id"])
        self.note(**{INTENT: intent})  # W11: committed before any confirm
        return self._confirm(intent, in_doubt=False)

    def _find(self, before: Outcome | None = None) -> Outcome:
        looking = LookUps(self.api, self.seconds(), self.lease.guard, self.noted(PLACE))
        found = looking.intent(self.attempt, self._expected(None))
        if isinstance(found, Deferred):
            return self.inconclusive(found, before, looking.place)
        if found is None:
            return self.missed(before)
        intent = str(found.get("id"))
        self.note(**{INTENT: intent})  # W11, found instead of answered
        return self._look(intent, then_confirm=True)

    def _look(self, intent: str, *, then_confirm: bool) -> Outcome:
        reply = self.api.retrieve(intent, self.call())
        result = classify(reply, self._expected(intent))
        if not isinstance(result, Next):
            return result
        if then_confirm:
            # Safe beyond the horizon as well: under a forgotten key, too, an intent cannot succeed twice.
            return self._confirm(intent, in_doubt=self.doubt)
        # Stripe says at once "cannot be confirmed" and "waits to be confirmed": another attempt will see clearer.
        return Unknown("unexpected_status", evidence=reply.evidence())

    def _confirm(self, intent: str, *, in_doubt: bool) -> Outcome:
        params, key = confirm_params(self.attempt), self.key(Step.CONFIRM)
        reply = self.api.confirm(intent, params, key, self.call(), in_doubt=in_doubt)
        result = classify(reply, self._expected(intent))
        return self._look(intent, then_confirm=False) if isinstance(result, Next) else result

    def _expected(self, intent: str | None) -> Expected:
        return expected(self.attempt, self.livemode, intent)


def expected(attempt: Attempt, livemode: bool, intent: str | None = None) -> Expected:
    """What the PaymentIntent of this charge must echo."""
    request = attempt.request
    manual = request.get("capture_method") == "manual"
    return Expected(owner_of(attempt), request["amount"], request["currency"], livemode, intent, manual)


def create_params(attempt: Attempt) -> dict[str, Any]:
    """The create step's parameters, in one order for ever: the same key must bring the same bytes (I4, I6).

    `receipt_email` stays out: Stripe would send its own receipt, a second e-mail that no ledger of ours knows.
    """
    request = attempt.request
    names = ("amount", "currency", "customer", "payment_method", "description", "statement_descriptor_suffix")
    params: dict[str, Any] = {name: request[name] for name in names if request.get(name) is not None}
    if request.get("capture_method") is not None:
        params["capture_method"] = request["capture_method"]
    # Nobody is there to be redirected; without this Stripe asks for a return_url (Stripe: Payment Intents API).
    params["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "never"}
    params["metadata"] = metadata_of(attempt)
    return params


def confirm_params(attempt: Attempt) -> dict[str, Any]:
    """The confirm step's parameters; off-session unless the caller has the customer at hand."""
    return {"off_session": attempt.request.get("off_session", True)}
