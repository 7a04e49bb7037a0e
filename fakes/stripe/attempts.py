"""What becomes of a payment attempt: charged, held, waiting for the customer, waiting for the bank, or declined.

Stripe docs, "How PaymentIntents work": a PaymentIntent succeeds at most once, whatever the keys. A decline moves no
money and still leaves a charge behind, so charges are not counts of money.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakes.house.idempotency import Answer
from fakes.stripe import balance, cards, holds, payment_methods
from fakes.stripe import errors as stripe_errors
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.cards import Card, Decline
from fakes.stripe.change import Change
from fakes.stripe.objects import Json
from fakes.stripe.payment_methods import Instrument

_NOT_AUTHENTICATED = Decline(
    "payment_intent_authentication_failure",
    None,
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new PaymentMethod"
    " to attempt to fulfill this PaymentIntent again.",
    None,
)


def attempt(change: Change, intent: Json, *, off_session: bool, error_on_action: bool) -> Answer | None:
    """One payment attempt with the payment method the PaymentIntent holds; an answer only when it is declined."""
    shown = change.load("payment_method", intent["payment_method"]) or {}
    found = payment_methods.held(change.connection, shown)
    card = found.card
    if card.authentication == "always" or (card.authentication == "unless_set_up" and not off_session):
        if not off_session and not error_on_action:
            _ask_customer(change, intent)
            return None
        return declined(change, intent, found, cards.AUTHENTICATION_REQUIRED)
    payment_methods.spend(change, found)
    if card.slow:
        wait_for_bank(change, intent, card)
    elif card.decline:
        return declined(change, intent, found, card.decline)
    else:
        charged(change, intent, found)
    return None


def charged(change: Change, intent: Json, found: Instrument) -> None:
    """The card said yes: the money is taken, or held where capture is manual."""
    charge = stripe_objects.charge(intent, found.card, change.now)
    intent |= {"latest_charge": charge["id"], "last_payment_error": None, "next_action": None}
    _keep_method(change, intent, found)
    if intent["capture_method"] == "manual":
        holds.hold(change, intent, charge)
        return
    _take(change, intent, charge, "charge")


def _take(change: Change, intent: Json, charge: Json, kind: balance.Kind) -> None:
    amount = intent["amount"]
    line = balance.transaction(
        kind,
        charge["id"],
        amount,
        currency=charge["currency"],
        now=change.now,
        description=charge["description"],
    )
    charge |= {
        "amount_captured": amount,
        "balance_transaction": line["id"],
        "captured": True,
        "paid": True,
        "status": "succeeded",
    }
    intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0, "processing": None}
    change.move("charge", charge, amount, intent["metadata"])
    change.save(line, charge, intent)
    change.emit("charge.succeeded", charge)
    change.emit("payment_intent.succeeded", intent)


def _keep_method(change: Change, intent: Json, found: Instrument) -> None:
    """`setup_future_usage` attaches the payment method to the customer once the payment has worked."""
    if intent["setup_future_usage"] and intent["customer"] and found.shown["customer"] is None:
        payment_methods.give_to(change, found, intent["customer"])


def _ask_customer(change: Change, intent: Json) -> None:
    intent |= {
        "status": "requires_action",
        "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}},
    }
    change.save(intent)
    change.emit("payment_intent.requires_action", intent)


def wait_for_bank(change: Change, intent: Json, card: Card) -> None:
    """Accepted, and the result comes later: `processing` may take days (Stripe docs, "ACH Direct Debit")."""
    charge = stripe_objects.charge(intent, card, change.now, status="pending")
    intent |= {
        "status": "processing",
        "latest_charge": charge["id"],
        "last_payment_error": None,
        "next_action": None,
        "payment_method_types": [card.type],
    }
    change.save(charge, intent)
    change.emit("charge.pending", charge)
    change.emit("payment_intent.processing", intent)


def declined(change: Change, intent: Json, found: Instrument, decline: Decline) -> Answer:
    """A refused charge: objects and events appear, money does not move, and the payment method is gone."""
    charge = stripe_objects.charge(intent, found.card, change.now, decline=decline)
    change.save(charge)
    return _refused(change, intent, charge, found, decline)


def _refused(change: Change, intent: Json, charge: Json, found: Instrument, decline: Decline) -> Answer:
    details = {
        "advice_code": decline.advice_code,
        "charge": charge["id"],
        "decline_code": decline.decline_code,
        "payment_method": found.shown,
    }
    refusal = stripe_errors.error(402, decline.message, kind="card_error", code=decline.code, **details)
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "latest_charge": charge["id"],
        "last_payment_error": _error_of(refusal),
        "next_action": None,
        "processing": None,
    }
    change.save(intent)
    change.emit("charge.failed", charge)
    change.emit("payment_intent.payment_failed", intent)
    return stripe_errors.error(
        402, decline.message, kind="card_error", code=decline.code, payment_intent=intent, **details
    )


def _error_of(answer: Answer) -> Any:
    return answer.body["error"] if isinstance(answer.body, Mapping) else None


def bank_said(change: Change, intent: Json, *, paid: bool) -> None:
    """The end of `processing`, days after the answer."""
    charge = change.load("charge", intent["latest_charge"]) or {}
    found = _held(change, intent)
    if paid:
        _keep_method(change, intent, found)
        _take(change, intent, charge, "payment")
        return
    decline = found.card.decline or Decline("payment_method_provider_decline", None, "The payment failed.", None)
    charge |= {"failure_code": decline.code, "failure_message": decline.message, "paid": False, "status": "failed"}
    change.save(charge)
    _refused(change, intent, charge, found, decline)


def customer_did(change: Change, intent: Json, *, authenticated: bool) -> None:
    """The end of `requires_action`: the customer proved who they are, or did not."""
    found = _held(change, intent)
    if not authenticated:
        intent |= {
            "status": "requires_payment_method",
            "payment_method": None,
            "next_action": None,
            "last_payment_error": _error_of(
                stripe_errors.error(
                    400, _NOT_AUTHENTICATED.message, code=_NOT_AUTHENTICATED.code, payment_method=found.shown
                )
            ),
        }
        change.save(intent)
        change.emit("payment_intent.payment_failed", intent)
        return
    payment_methods.spend(change, found)
    if found.card.decline:
        declined(change, intent, found, found.card.decline)
    else:
        charged(change, intent, found)


def _held(change: Change, intent: Json) -> Instrument:
    shown = change.load("payment_method", intent["payment_method"]) or {}
    return payment_methods.held(change.connection, shown)
