"""Stripe's objects as JSON: the fields stripe-python declares as always present, and those our callers read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from fakes.stripe.cards import Card, Decline
from fakes.stripe.objects import Json

API_VERSION = "2026-10-28.endive"


def new_id(prefix: str) -> str:
    """An id of Stripe's shape: later ones sort later, so that indexes grow at their end, and none can be guessed."""
    return f"{prefix}_3{time.time_ns() // 1_000_000:011x}{secrets.token_hex(7)}"


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
        "application": None,
        "application_fee_amount": None,
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


def charge(intent: Json, card: Card, now: int, *, status: str = "succeeded", decline: Decline | None = None) -> Json:
    """One attempt to take the money; a declined one is an object too, so charges are not counts of money.

    It begins uncaptured and without a balance transaction, whatever becomes of it in the same moment.
    """
    return {
        "id": new_id("ch" if card.type == "card" else "py"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": _billing_details(),
        "calculated_statement_descriptor": None,
        "captured": False,
        "created": now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": decline.code if decline else None,
        "failure_message": decline.message if decline else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": _outcome(decline),
        "paid": decline is None and status != "failed",
        "payment_intent": intent["id"],
        "payment_method": intent["payment_method"],
        "payment_method_details": {"type": card.type, card.type: _look(card)},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": intent["shipping"],
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "failed" if decline else status,
        "transfer_data": None,
        "transfer_group": intent["transfer_group"],
    }


def _billing_details() -> Json:
    return {"address": None, "email": None, "name": None, "phone": None, "tax_id": None}


def _look(card: Card) -> Json:
    if card.type == "us_bank_account":
        return {
            "account_holder_type": "individual",
            "account_type": "checking",
            "bank_name": "STRIPE TEST BANK",
            "fingerprint": f"fp{card.last4}",
            "last4": card.last4,
            "routing_number": "110000000",
        }
    if card.type == "sepa_debit":
        return {"bank_code": "37040044", "branch_code": "", "country": "DE", "fingerprint": None, "last4": card.last4}
    return {
        "brand": card.brand,
        "country": "US",
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": f"fp{card.last4}",
        "funding": "credit",
        "last4": card.last4,
    }


def _outcome(decline: Decline | None) -> Json:
    if decline is None:
        return {
            "advice_code": None,
            "network_advice_code": None,
            "network_decline_code": None,
            "network_status": "approved_by_network",
            "reason": None,
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    return {
        "advice_code": decline.advice_code,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network",
        "reason": decline.decline_code or decline.code,
        "seller_message": "The bank declined the payment.",
        "type": "issuer_declined",
    }


def payment_method(method_id: str, card: Card, customer: str | None, now: int) -> Json:
    """A saved card or bank account."""
    look = _look(card)
    if card.type == "card":
        look |= {
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "display_brand": card.brand,
            "generated_from": None,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        }
    elif card.type == "us_bank_account":
        look |= {"financial_connections_account": None, "networks": None, "status_details": None}
    else:
        look["generated_from"] = None
    return {
        "id": method_id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": _billing_details(),
        card.type: look,
        "created": now,
        "customer": customer,
        "livemode": False,
        "metadata": {},
        "type": card.type,
    }


def customer(params: Mapping[str, Any], now: int) -> Json:
    """A customer; its payment methods are objects of their own."""
    return {
        "id": new_id("cus"),
        "object": "customer",
        "address": params.get("address"),
        "balance": 0,
        "created": now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": params.get("description"),
        "discount": None,
        "email": params.get("email"),
        "invoice_prefix": secrets.token_hex(4).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": params.get("metadata", {}),
        "name": params.get("name"),
        "phone": params.get("phone"),
        "preferred_locales": params.get("preferred_locales", []),
        "shipping": params.get("shipping"),
        "tax_exempt": "none",
        "test_clock": None,
    }


def refund(charge: Json, params: Mapping[str, Any], amount: int, now: int) -> Json:
    """Money to be given back; its metadata is its own, not its charge's."""
    return {
        "id": new_id("re" if charge["id"].startswith("ch_") else "pyr"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        }
        if charge["id"].startswith("ch_")
        else None,
        "metadata": params.get("metadata", {}),
        "payment_intent": charge["payment_intent"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "pending",
        "transfer_reversal": None,
    }


def event(kind: str, about: Json | None, now: int, *, request_id: str | None, key: str | None) -> Json:
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
