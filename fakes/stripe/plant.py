"""Ready-made objects in bulk, for audits: a year of payments in a few seconds, made by the same code as real ones.

One description is one PaymentIntent and what became of it:

    amount, currency, created           created: unix seconds, now when left out
    status                              succeeded (default), captured, requires_payment_method, requires_confirmation,
                                        requires_capture, processing, declined or canceled
    metadata, customer, description     as in the API
    key                                 the idempotency key its events and its ledger row carry
    refunds                             [{amount, created, metadata, key, status}], of what was taken
    without                             what is left out to plant a break: ledger, balance_transaction, events
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fakes.stripe import attempts, cards, holds, payment_methods, refunds
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.cards import Card
from fakes.stripe.objects import Json
from fakes.stripe.payment_methods import Instrument
from fakes.stripe.seedbed import Planting, Seedbed

_FIELDS = frozenset(
    ("amount", "currency", "created", "status", "metadata", "customer", "description", "key", "refunds", "without")
)
_REFUND_FIELDS = frozenset(("amount", "created", "metadata", "key", "status", "without"))
_OMITTED = frozenset(("ledger", "balance_transaction", "events"))
_GOOD, _BANK = Card(), Card("", "6789", type="us_bank_account")


class BadPlant(ValueError):
    """A description that cannot be planted; the message says what is wrong with it."""


def plant(connection: sqlite3.Connection, wishes: Sequence[Mapping[str, Any]], now: int) -> list[Json]:
    """Make all of them, in one transaction with whatever surrounds it; returns their ids. Raises BadPlant."""
    bed = Seedbed()
    planted = [_one(Planting(connection, now, bed=bed), wish) for wish in wishes]
    bed.write(connection)
    return planted


def _one(bed: Planting, wish: Mapping[str, Any]) -> Json:
    end = _ENDS.get(wish.get("status", "succeeded"))
    if unknown := sorted(set(wish) - _FIELDS):
        raise BadPlant(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    if not isinstance(wish.get("amount"), int):
        raise BadPlant(f"amount must be minor units, not {wish.get('amount')!r}")
    if end is None:
        raise BadPlant(f"unknown status {wish['status']!r}; known are {', '.join(_ENDS)}")
    change = _change(bed, wish)
    params = {"currency": "eur", **wish, "metadata": dict(wish.get("metadata", {}))}
    intent = stripe_objects.payment_intent(params, change.now)
    change.emit("payment_intent.created", intent)
    end(change, intent)
    planted = {"payment_intent": intent["id"], "charge": intent["latest_charge"]}
    if wish.get("refunds"):
        planted["refunds"] = [_refund(bed, each, intent) for each in wish["refunds"]]
    return planted


def _change(bed: Planting, wish: Mapping[str, Any]) -> Planting:
    without = frozenset(wish.get("without", ()))
    if not without <= _OMITTED:
        raise BadPlant(f"only {', '.join(sorted(_OMITTED))} can be left out, not {', '.join(sorted(without))}")
    at, request_id = wish.get("created", bed.now), f"req_{secrets.token_hex(7)}"
    return Planting(bed.connection, at, request_id, wish.get("key"), bed.bed, without)


def _instrument(intent: Json, card: Card) -> Instrument:
    """A payment method that is named and not kept: it has done its work."""
    intent["payment_method"] = stripe_objects.new_id("pm")
    shown = {"id": intent["payment_method"], "customer": intent["customer"]}
    return Instrument(shown, card, assumed=True, spent=True)


def _keep_method(change: Planting, intent: Json, name: str) -> None:
    """A payment method that something is still to happen to."""
    intent["payment_method"] = payment_methods.find(change, name, None).shown["id"]


def _succeeded(change: Planting, intent: Json) -> None:
    attempts.charged(change, intent, _instrument(intent, _GOOD))


def _held(change: Planting, intent: Json) -> None:
    intent["capture_method"] = "manual"
    attempts.charged(change, intent, _instrument(intent, _GOOD))


def _captured(change: Planting, intent: Json) -> None:
    _held(change, intent)
    holds.take(change, intent, None)


def _declined(change: Planting, intent: Json) -> None:
    attempts.declined(change, intent, _instrument(intent, _GOOD), cards.GENERIC)


def _canceled(change: Planting, intent: Json) -> None:
    holds.cancel(change, intent, "requested_by_customer")


def _processing(change: Planting, intent: Json) -> None:
    _keep_method(change, intent, "pm_usBankAccount_success")
    attempts.wait_for_bank(change, intent, _BANK)


def _without_method(change: Planting, intent: Json) -> None:
    change.save(intent)


def _unconfirmed(change: Planting, intent: Json) -> None:
    _keep_method(change, intent, "pm_card_visa")
    intent["status"] = "requires_confirmation"
    change.save(intent)


_ENDS: dict[str, Callable[[Planting, Json], None]] = {
    "succeeded": _succeeded,
    "captured": _captured,
    "requires_payment_method": _without_method,
    "requires_confirmation": _unconfirmed,
    "requires_capture": _held,
    "processing": _processing,
    "declined": _declined,
    "canceled": _canceled,
}


def _refund(bed: Planting, wish: Mapping[str, Any], intent: Json) -> str:
    if unknown := sorted(set(wish) - _REFUND_FIELDS):
        raise BadPlant(f"unknown field {unknown[0]!r} of a refund; known are {', '.join(sorted(_REFUND_FIELDS))}")
    change = _change(bed, {"created": intent["created"], **wish})
    charge = change.load("charge", intent["latest_charge"])
    if charge is None or not charge["captured"]:
        raise BadPlant(f"nothing was taken that could be refunded: {intent['status']}")
    # Whatever the amount: an audit must find more given back than was taken, and Stripe itself would refuse it.
    amount = wish.get("amount", charge["amount"] - charge["amount_refunded"])
    refund = stripe_objects.refund(charge, {"metadata": dict(wish.get("metadata", {}))}, amount, change.now)
    refunds.begin(change, refund, charge, wish.get("status", "succeeded"))
    return str(refund["id"])
