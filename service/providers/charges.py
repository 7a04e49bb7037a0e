"""A charge at Stripe moves money at most once: create, remember the id, look, and only then confirm.

An unconfirmed PaymentIntent moves nothing, and one PaymentIntent succeeds at most once. Its id is committed before
the first confirm (W11), so that it protects even after Stripe has forgotten our keys. Each step's bytes are a pure
function of the frozen request, its key is made of the effect's id (I6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.core.effect import Attempt, Guarantee, HorizonPassed, Lease
from service.core.keys import step_key
from service.core.outcome import Outcome, Unknown
from service.core.state import State
from service.providers.stripe import Call, StripeApi
from service.providers.stripe_answers import Expected, Next, Step, classify

# Stripe keeps keys for at least 24 hours and then forgets them without a word (Stripe: Idempotent requests); four
# hours of margin are for clocks and for the time a request may lie in a queue.
HORIZON_SECONDS = 20 * 3600.0


class StripeCharges:
    """The provider of kind `charge`."""

    name = "stripe"
    guarantee = Guarantee.KEYED

    def __init__(self, api: StripeApi, *, livemode: bool, deadline_seconds: float) -> None:
        self._api = api
        self._livemode = livemode
        self._deadline_seconds = deadline_seconds

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Carry the charge as far as Stripe lets it go. Raises LeaseLost, having sent nothing after it."""
        return _Charge(self._api, attempt, lease, self._livemode, self._deadline_seconds).run()

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask for the recorded PaymentIntent; without one there is nothing to ask for."""
        known = attempt.progress.get("payment_intent")
        if not isinstance(known, str):
            return Unknown("not_found")
        reply = self._api.retrieve(known, Call(seconds, lambda: None))
        request = attempt.request
        expected = Expected(attempt.id, request["amount"], request["currency"], self._livemode, known)
        result = classify(reply, expected)
        return Unknown("not_confirmed", evidence=reply.evidence()) if isinstance(result, Next) else result


class _Charge:
    """One attempt at one charge."""

    def __init__(self, api: StripeApi, attempt: Attempt, lease: Lease, livemode: bool, deadline_seconds: float) -> None:
        self._api = api
        self._attempt = attempt
        self._lease = lease
        self._livemode = livemode
        self._deadline_seconds = deadline_seconds

    def run(self) -> Outcome:
        """With a recorded PaymentIntent look first; without one nothing can have been confirmed."""
        known = self._attempt.progress.get("payment_intent")
        if isinstance(known, str):
            # An earlier attempt of any kind may have confirmed it; only the intent itself knows.
            return self._look(known, then_confirm=True)
        try:
            reply = self._api.create(
                create_params(self._attempt),
                self._key(Step.CREATE),
                self._call(self._guard_create),
                in_doubt=self._doubt,
            )
        except HorizonPassed:
            # Stripe may have forgotten the key: another create could be a second intent. No confirm ever went out.
            return Unknown("key_expired", evidence={"step": Step.CREATE.value})
        result = classify(reply, self._expected(None))
        if not isinstance(result, Next):
            return result
        intent = str((reply.intent or {})["id"])
        self._lease.record({"payment_intent": intent})  # W11: committed before any confirm
        return self._confirm(intent, in_doubt=False)

    def _look(self, intent: str, *, then_confirm: bool) -> Outcome:
        reply = self._api.retrieve(intent, self._call(self._lease.guard))
        result = classify(reply, self._expected(intent))
        if not isinstance(result, Next):
            return result
        if then_confirm:
            # Safe beyond the horizon as well: under a forgotten key, too, an intent cannot succeed twice.
            return self._confirm(intent, in_doubt=self._doubt)
        # Stripe says at once "cannot be confirmed" and "waits to be confirmed": another attempt will see clearer.
        return Unknown("unexpected_status", evidence=reply.evidence())

    def _confirm(self, intent: str, *, in_doubt: bool) -> Outcome:
        call = self._call(self._lease.guard)
        reply = self._api.confirm(
            intent, confirm_params(self._attempt), self._key(Step.CONFIRM), call, in_doubt=in_doubt
        )
        result = classify(reply, self._expected(intent))
        return self._look(intent, then_confirm=False) if isinstance(result, Next) else result

    @property
    def _doubt(self) -> bool:
        """Whether an earlier attempt may have sent what this one is about to send."""
        return self._attempt.in_doubt or self._attempt.prior is not State.PENDING

    def _guard_create(self) -> None:
        self._lease.guard(horizon_seconds=HORIZON_SECONDS)

    def _key(self, step: Step) -> str:
        return step_key(self._attempt.id, step.value)

    def _call(self, before_send: Callable[[], None]) -> Call:
        return Call(min(self._deadline_seconds, self._lease.seconds_left()), before_send)

    def _expected(self, intent: str | None) -> Expected:
        request = self._attempt.request
        return Expected(self._attempt.id, request["amount"], request["currency"], self._livemode, intent)


def create_params(attempt: Attempt) -> dict[str, Any]:
    """The create step's parameters, in one order for ever: the same key must bring the same bytes (I4, I6).

    `receipt_email` stays out: Stripe would send its own receipt, a second e-mail that no ledger of ours knows.
    """
    request = attempt.request
    names = ("amount", "currency", "customer", "payment_method", "description", "statement_descriptor_suffix")
    params: dict[str, Any] = {name: request[name] for name in names if request.get(name) is not None}
    # Nobody is there to be redirected; without this Stripe asks for a return_url (Stripe: Payment Intents API).
    params["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "never"}
    metadata = dict(sorted((request.get("metadata") or {}).items()))
    params["metadata"] = {**metadata, "effect_id": attempt.id}
    return params


def confirm_params(attempt: Attempt) -> dict[str, Any]:
    """The confirm step's parameters; off-session unless the caller has the customer at hand."""
    return {"off_session": attempt.request.get("off_session", True)}
