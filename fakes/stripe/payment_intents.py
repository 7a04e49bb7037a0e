"""PaymentIntents: created without moving money, confirmed at most once with success, whatever the keys.

Stripe docs, "How PaymentIntents work" and "The Payment Intents API": a second confirm of a succeeded PaymentIntent is
refused with `payment_intent_unexpected_state`. That is what protects a charge after its key has been forgotten (W8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Call, Refused
from fakes.stripe import attempts, customers, holds, payment_methods
from fakes.stripe import errors as stripe_errors
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.change import Change
from fakes.stripe.objects import Json

AMOUNT_MAX = 99_999_999  # Stripe docs, "Supported currencies": eight digits
# Stripe docs, "Minimum charge amounts" are about half a US dollar in each currency; kept simple here: 50 minor units
# where a unit has any, one unit where it has none.
AMOUNT_MIN = 50
ZERO_DECIMAL = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing")


def create(call: Call) -> Answer:
    """A new PaymentIntent; with `confirm` it is charged in the same call."""
    change = Change.asked_by(call)
    _check_amount(call.params["amount"], call.params["currency"].lower())
    customers.check(change, call.params.get("customer"), "customer")
    intent = stripe_objects.payment_intent(call.params, change.now)
    _hold_method(change, intent, call.params)
    change.save(intent)
    change.emit("payment_intent.created", intent)
    if call.params.get("confirm"):
        return _confirmed(change, intent, call.params)
    return Answer(200, intent)


def confirm(call: Call) -> Answer:
    """Charge the PaymentIntent, once."""
    change = Change.asked_by(call)
    intent = _intent(change, call)
    if intent["status"] not in CONFIRMABLE:
        raise Refused(_unexpected_state("confirm", intent, CONFIRMABLE))
    _hold_method(change, intent, call.params)
    for name in ("receipt_email", "setup_future_usage", "shipping", "capture_method"):
        if name in call.params:
            intent[name] = call.params[name] or None
    return _confirmed(change, intent, call.params)


def capture(call: Call) -> Answer:
    """Take the money that an earlier confirm reserved, once; what is not taken is released."""
    change = Change.asked_by(call)
    intent = _intent(change, call)
    if intent["status"] != "requires_capture":
        raise Refused(_unexpected_state("capture", intent, ("requires_capture",)))
    intent["metadata"] = merged(intent["metadata"], call.params.get("metadata"))
    holds.take(change, intent, call.params.get("amount_to_capture"))
    return Answer(200, intent)


def cancel(call: Call) -> Answer:
    """End a PaymentIntent that has not succeeded; it never will."""
    change = Change.asked_by(call)
    intent = _intent(change, call)
    if intent["status"] not in CANCELABLE:
        raise Refused(_unexpected_state("cancel", intent, CANCELABLE))
    holds.cancel(change, intent, call.params.get("cancellation_reason"))
    return Answer(200, intent)


def merged(metadata: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """Stripe docs, "Metadata": new keys are added, known ones replaced, others stay."""
    return {**metadata, **(given or {})}


def _intent(change: Change, call: Call) -> Json:
    return change.need("payment_intent", call.path_id or "", "intent", 404)


def _check_amount(amount: int, currency: str) -> None:
    """Business rules of the endpoint, so their refusals are kept under the key."""
    if amount > AMOUNT_MAX:
        message = f"Amount must be no more than {AMOUNT_MAX} minor units of {currency}"
        raise Refused(stripe_errors.error(400, message, code="amount_too_large", param="amount"))
    if amount < AMOUNT_MIN and currency not in ZERO_DECIMAL:
        message = f"Amount must be at least {AMOUNT_MIN} minor units of {currency}"
        raise Refused(stripe_errors.error(400, message, code="amount_too_small", param="amount"))


def _hold_method(change: Change, intent: Json, params: Mapping[str, Any]) -> None:
    """Put the payment method named in the request into the PaymentIntent. Raises Refused."""
    if not (name := params.get("payment_method")):
        return
    found = payment_methods.find(change, name, intent["customer"])
    payment_methods.check_usable(found, intent["customer"])
    intent["payment_method"] = found.shown["id"]
    if intent["status"] == "requires_payment_method":
        intent["status"] = "requires_confirmation"


def _confirmed(change: Change, intent: Json, params: Mapping[str, Any]) -> Answer:
    if intent["payment_method"] is None:
        raise Refused(_missing_method(intent))
    shown = change.load("payment_method", intent["payment_method"]) or {}
    # Named long ago, it may have been used up by another PaymentIntent since.
    payment_methods.check_usable(payment_methods.held(change.connection, shown), intent["customer"])
    refusal = attempts.attempt(
        change,
        intent,
        off_session=params.get("off_session") not in (None, "false", ""),
        error_on_action=bool(params.get("error_on_requires_action")),
    )
    return refusal or Answer(200, intent)


def _missing_method(intent: Json) -> Answer:
    return stripe_errors.error(
        400,
        "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the"
        " PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a payment"
        " method or ConfirmationToken.",
        code="payment_intent_unexpected_state",
        payment_intent=intent,
    )


def _unexpected_state(verb: str, intent: Json, allowed: tuple[str, ...]) -> Answer:
    why = f"it has a status of {intent['status']}. Only a PaymentIntent with one of the following statuses may be"
    done = f"{verb}{'d' if verb.endswith('e') else 'ed'}: {', '.join(allowed)}"
    message = f"You cannot {verb} this PaymentIntent because {why} {done}."
    if verb == "confirm" and intent["status"] == "succeeded":
        message = (
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed."
        )
    return stripe_errors.error(400, message, code="payment_intent_unexpected_state", payment_intent=intent)
