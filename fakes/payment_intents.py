"""PaymentIntents: created without moving money, confirmed at most once with success, whatever the keys.

Stripe docs, "How PaymentIntents work" and "The Payment Intents API": a second confirm of a succeeded PaymentIntent is
refused with `payment_intent_unexpected_state`. That is what protects a charge after its key has been forgotten (W8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakes import cards, ledger, stripe_errors, stripe_objects
from fakes.cards import Card, Decline
from fakes.idempotency import Answer
from fakes.pipeline import Call, Refused
from fakes.stripe_objects import Json

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
    _check_amount(call.params["amount"], call.params["currency"].lower())
    method = _chosen_method(call, call.params)
    intent = stripe_objects.payment_intent(call.params, call.now)
    if method:
        _hold(call, intent, method)
    _emit(call, "payment_intent.created", intent)
    if call.params.get("confirm"):
        return _confirmed(call, intent)
    return _saved(call, intent)


def retrieve(call: Call) -> Answer:
    """The PaymentIntent as it is now."""
    return _shown(call, _intent(call))


def confirm(call: Call) -> Answer:
    """Charge the PaymentIntent, once."""
    intent = _intent(call)
    if intent["status"] not in CONFIRMABLE:
        raise Refused(_unexpected_state("confirm", intent, CONFIRMABLE))
    if method := _chosen_method(call, call.params):
        _hold(call, intent, method)
    for name in ("receipt_email", "setup_future_usage", "shipping", "capture_method"):
        if name in call.params:
            intent[name] = call.params[name] or None
    return _confirmed(call, intent)


def capture(call: Call) -> Answer:
    """Take the money that an earlier confirm reserved; what is not taken is released."""
    intent = _intent(call)
    if intent["status"] != "requires_capture":
        raise Refused(_unexpected_state("capture", intent, ("requires_capture",)))
    amount = call.params.get("amount_to_capture", intent["amount_capturable"])
    if not 0 < amount <= intent["amount_capturable"]:
        message = "The amount to capture must be positive and at most the amount that can be captured."
        raise Refused(stripe_errors.error(400, message, code="amount_too_large", param="amount_to_capture"))
    charge = ledger.load(call.connection, "charge", intent["latest_charge"]) or {}
    charge |= {
        "captured": True,
        "amount_captured": amount,
        "amount_refunded": intent["amount"] - amount,
        "balance_transaction": stripe_objects.new_id("txn"),
    }
    _take(call, intent, charge)
    _emit(call, "charge.captured", charge)
    return _saved(call, intent)


def cancel(call: Call) -> Answer:
    """End a PaymentIntent that has not succeeded; it never will."""
    intent = _intent(call)
    if intent["status"] not in CANCELABLE:
        raise Refused(_unexpected_state("cancel", intent, CANCELABLE))
    intent |= {
        "status": "canceled",
        "amount_capturable": 0,
        "canceled_at": call.now,
        "cancellation_reason": call.params.get("cancellation_reason"),
    }
    _emit(call, "payment_intent.canceled", intent)
    return _saved(call, intent)


def _intent(call: Call) -> Json:
    intent_id = call.path_id or ""
    intent = ledger.load(call.connection, "payment_intent", intent_id)
    if intent is None:
        raise Refused(stripe_errors.no_such("payment_intent", intent_id, "intent"))
    return intent


def _check_amount(amount: int, currency: str) -> None:
    """Business rules of the endpoint, so their refusals are kept under the key."""
    if amount > AMOUNT_MAX:
        message = f"Amount must be no more than {AMOUNT_MAX} minor units of {currency}"
        raise Refused(stripe_errors.error(400, message, code="amount_too_large", param="amount"))
    if amount < AMOUNT_MIN and currency not in ZERO_DECIMAL:
        message = f"Amount must be at least {AMOUNT_MIN} minor units of {currency}"
        raise Refused(stripe_errors.error(400, message, code="amount_too_small", param="amount"))


def _chosen_method(call: Call, params: Mapping[str, Any]) -> Json | None:
    """The payment method named in the request; refuses names that Stripe does not know."""
    name = params.get("payment_method")
    if not name:
        return None
    known = ledger.load(call.connection, "payment_method", name)
    card = cards.find(name)
    if known is None and card is None:
        raise Refused(stripe_errors.no_such("PaymentMethod", name, "payment_method", 400))
    return known or stripe_objects.payment_method(name, card or Card(), params.get("customer"), call.now)


def _hold(call: Call, intent: Json, method: Json) -> None:
    """Put a payment method into the PaymentIntent; a test blueprint becomes a payment method of its own."""
    ledger.save(call.connection, method)
    intent["payment_method"] = method["id"]
    if intent["status"] == "requires_payment_method":
        intent["status"] = "requires_confirmation"


def _confirmed(call: Call, intent: Json) -> Answer:
    """One payment attempt: charged, authorised, waiting for the customer, or declined."""
    if intent["payment_method"] is None:
        raise Refused(_missing_method(intent))
    method = ledger.load(call.connection, "payment_method", intent["payment_method"]) or {}
    card = cards.find(method["_blueprint"]) or Card()
    off_session = call.params.get("off_session") not in (None, "false", "")
    if card.authentication == "always" or (card.authentication == "unless_set_up" and not off_session):
        if not off_session and not call.params.get("error_on_requires_action"):
            return _requires_action(call, intent)
        return _declined(call, intent, card, method, cards.AUTHENTICATION_REQUIRED)
    if card.decline:
        return _declined(call, intent, card, method, card.decline)
    return _charged(call, intent, card)


def _charged(call: Call, intent: Json, card: Card) -> Answer:
    captured = intent["capture_method"] != "manual"
    charge = stripe_objects.charge(intent, card, call.now, captured=captured)
    intent |= {"latest_charge": charge["id"], "last_payment_error": None, "next_action": None}
    _emit(call, "charge.succeeded", charge)
    if captured:
        _take(call, intent, charge)
    else:
        ledger.save(call.connection, charge)
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        _emit(call, "payment_intent.amount_capturable_updated", intent)
    return _saved(call, intent)


def _take(call: Call, intent: Json, charge: Json) -> None:
    """The money moves: the one place that writes the ledger."""
    arrival = call.arrival
    ledger.move_money(call.connection, "charge", intent, charge, key=arrival.key, at=arrival.at)
    ledger.save(call.connection, charge)
    intent |= {"status": "succeeded", "amount_received": charge["amount_captured"], "amount_capturable": 0}
    _emit(call, "payment_intent.succeeded", intent)


def _requires_action(call: Call, intent: Json) -> Answer:
    intent |= {
        "status": "requires_action",
        "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}},
    }
    _emit(call, "payment_intent.requires_action", intent)
    return _saved(call, intent)


def _declined(call: Call, intent: Json, card: Card, method: Json, decline: Decline) -> Answer:
    """A refused charge: objects and events appear, money does not move, and the payment method is gone."""
    charge = stripe_objects.charge(intent, card, call.now, captured=True, decline=decline)
    details = {
        "advice_code": decline.advice_code,
        "charge": charge["id"],
        "decline_code": decline.decline_code,
        "payment_method": {name: value for name, value in method.items() if not name.startswith("_")},
    }
    refusal = stripe_errors.error(402, decline.message, kind="card_error", code=decline.code, **details)
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "latest_charge": charge["id"],
        "last_payment_error": _error_of(refusal),
        "next_action": None,
    }
    ledger.save(call.connection, charge)
    ledger.save(call.connection, intent)
    _emit(call, "charge.failed", charge)
    _emit(call, "payment_intent.payment_failed", intent)
    return stripe_errors.error(
        402, decline.message, kind="card_error", code=decline.code, payment_intent=intent, **details
    )


def _error_of(answer: Answer) -> Any:
    return answer.body["error"] if isinstance(answer.body, Mapping) else None


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
    message = f"You cannot {verb} this PaymentIntent because {why} {verb}ed: {', '.join(allowed)}."
    if verb == "confirm" and intent["status"] == "succeeded":
        message = (
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed."
        )
    return stripe_errors.error(400, message, code="payment_intent_unexpected_state", payment_intent=intent)


def _emit(call: Call, kind: str, about: Json) -> None:
    arrival = call.arrival
    ledger.save(
        call.connection,
        stripe_objects.event(kind, about, call.now, request_id=arrival.request_id, key=arrival.key),
    )


def _saved(call: Call, intent: Json) -> Answer:
    ledger.save(call.connection, intent)
    return _shown(call, intent)


def _shown(call: Call, intent: Json) -> Answer:
    """The PaymentIntent as the caller wants to see it (Stripe docs, "Expanding Responses")."""
    if "latest_charge" in call.params.get("expand", ()) and intent["latest_charge"]:
        intent = {**intent, "latest_charge": ledger.load(call.connection, "charge", intent["latest_charge"])}
    return Answer(200, intent)
