"""Stripe's objects as JSON: the fields stripe-python declares as always present, and those our callers read."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fakes.cards import Card, Decline

API_VERSION = "2026-10-28.endive"
Json = dict[str, Any]


def new_id(prefix: str) -> str:
    """An id of Stripe's shape; random, so that nothing can be guessed from it."""
    return f"{prefix}_3{secrets.token_hex(12)}"


def payment_intent(params: Mapping[str, Any], now: int) -> Json:
    """A PaymentIntent as created, without a payment attempt."""
    intent_id = new_id("pi")
    types = params.get("payment_method_types")
    automatic = params.get("automatic_payment_methods") or (None if types else {"enabled": "true"})
    return {
        "id": intent_id,
        "object": "payment_intent",
        "amount": params["amount"],
        "amount_capturable": 0,
        "amount_received": 0,
        "automatic_payment_methods": _automatic(automatic),
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": params.get("capture_method", "automatic_async"),
        "client_secret": f"{intent_id}_secret_{secrets.token_hex(12)}",
        "confirmation_method": params.get("confirmation_method", "automatic"),
        "created": now,
        "currency": params["currency"].lower(),
        "customer": params.get("customer"),
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": params.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {},
        "payment_method_types": types or ["card"],
        "processing": None,
        "receipt_email": params.get("receipt_email") or None,
        "review": None,
        "setup_future_usage": params.get("setup_future_usage"),
        "shipping": params.get("shipping"),
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": params.get("transfer_group"),
    }


def _automatic(params: Mapping[str, str] | None) -> Json | None:
    if params is None:
        return None
    return {"allow_redirects": params.get("allow_redirects", "always"), "enabled": params.get("enabled") == "true"}


def charge(intent: Json, card: Card, now: int, *, captured: bool, decline: Decline | None = None) -> Json:
    """One attempt to take the money; a declined one is an object too, so charges are not counts of money."""
    paid = decline is None
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if paid and captured else 0,
        "amount_refunded": 0,
        "balance_transaction": new_id("txn") if paid and captured else None,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "captured": paid and captured,
        "created": now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": decline.code if decline else None,
        "failure_message": decline.message if decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "outcome": _outcome(decline),
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "payment_method_details": {"type": "card", "card": {"brand": card.brand, "last4": card.last4}},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "succeeded" if paid else "failed",
    }


def _outcome(decline: Decline | None) -> Json:
    if decline is None:
        return {"network_status": "approved_by_network", "type": "authorized", "seller_message": "Payment complete."}
    return {
        "network_status": "declined_by_network",
        "reason": decline.decline_code or decline.code,
        "seller_message": "The bank declined the payment.",
        "type": "issuer_declined",
    }


def payment_method(name: str, card: Card, customer: str | None, now: int) -> Json:
    """The payment method a PaymentIntent holds. Test names are blueprints: each use makes a new one."""
    return {
        "id": new_id("pm") if name.startswith("pm_card_") else name,
        "object": "payment_method",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "card": {"brand": card.brand, "last4": card.last4, "exp_month": 12, "exp_year": 2040, "funding": "credit"},
        "created": now,
        "customer": customer,
        "livemode": False,
        "metadata": {},
        "type": "card",
        # Not Stripe's: which blueprint it came from, so that a later confirm behaves like its card.
        "_blueprint": name,
    }


def event(kind: str, about: Json, now: int, *, request_id: str, key: str | None) -> Json:
    """What happened to an object, and which request made it happen: the look-up by key after a lost answer."""
    return {
        "id": new_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": request_id, "idempotency_key": key},
        "type": kind,
    }
