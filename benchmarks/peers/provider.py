"""How the peers charge: Stripe's own SDK in one call, as in most examples, with or without an Idempotency-Key.

`PEERS_KEYED` is the only difference between the columns. Without it the SDK makes up a new key for every call (Stripe
docs, "Idempotent requests"), which protects from a lost connection and not from a dead process.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import stripe

stripe.enable_telemetry = False


@cache
def client() -> stripe.StripeClient:
    """The SDK with its own defaults: its timeouts, and two retries of its own."""
    return stripe.StripeClient("sk_test_peers", base_addresses={"api": os.environ["PEERS_PROVIDER"]})


def options(key: str) -> Any:
    """The request options: the library's stable key, or none."""
    return {"idempotency_key": key} if os.environ.get("PEERS_KEYED") == "yes" else {}


def wish(order: str, amount: int) -> Any:
    """What is to be paid; the order's name is what the ledger is counted by."""
    return {"amount": amount, "currency": "eur", "payment_method": "pm_card_visa", "metadata": {"order": order}}


def charge(order: str, amount: int, key: str) -> str:
    """Create and confirm in one call; the id of the PaymentIntent."""
    params = {**wish(order, amount), "confirm": True}
    return str(client().v1.payment_intents.create(params, options(key)).id)


def create(order: str, amount: int, key: str) -> str:
    """Create a PaymentIntent, which moves no money yet; its id."""
    return str(client().v1.payment_intents.create(wish(order, amount), options(f"{key}:create")).id)


def confirm(intent: str, key: str) -> None:
    """Confirm it, unless it has succeeded already."""
    if client().v1.payment_intents.retrieve(intent).status != "succeeded":
        client().v1.payment_intents.confirm(intent, {}, options(f"{key}:confirm"))
