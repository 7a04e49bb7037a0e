"""Payment methods: test names are blueprints, an unattached one is good for one PaymentIntent, an attached one for its
customer only (Stripe docs, "Testing", "PaymentMethods" and "Save and reuse payment methods").

A service that passes with a fake which forgets these rules fails in production on the second charge.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Call, Refused
from fakes.stripe import cards
from fakes.stripe import errors as stripe_errors
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.cards import Card
from fakes.stripe.change import Change
from fakes.stripe.objects import Json

# What Stripe does not show: the blueprint behind a payment method, and whether it may be used again.
SCHEMA = """
CREATE TABLE IF NOT EXISTS instruments (
    payment_method TEXT PRIMARY KEY, blueprint TEXT NOT NULL, assumed INTEGER NOT NULL, spent INTEGER NOT NULL DEFAULT 0
);
"""

_SPENT = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared with a"
    " connected account without Customer attachment, or was detached from a Customer. It may not be used again. To use"
    " a PaymentMethod multiple times, you must attach it to a Customer first."
)
_SPENT_FOR_GOOD = (
    "This PaymentMethod was previously used without being attached to a Customer or was detached from a Customer, and"
    " may not be used again."
)


@dataclass(frozen=True, slots=True)
class Instrument:
    """A payment method with its card and its past."""

    shown: Json
    card: Card
    assumed: bool
    spent: bool


def find(change: Change, name: str, customer: str | None, param: str = "payment_method") -> Instrument:
    """The payment method of this name; a blueprint, or an id that is only assumed to exist, is made. Raises Refused."""
    if card := cards.blueprint(name):
        return _make(change, stripe_objects.new_id("pm"), name, card, None)
    shown = change.load("payment_method", name)
    if shown is not None:
        return held(change.connection, shown)
    card = None if change.settings.strict_accounts else cards.assumed(name)
    if card is None:
        raise Refused(stripe_errors.no_such("PaymentMethod", name, param, 400))
    return _make(change, name, name, card, customer, assumed=True)


def held(connection: sqlite3.Connection, shown: Json) -> Instrument:
    """A known payment method with what Stripe does not show of it."""
    row = connection.execute("SELECT * FROM instruments WHERE payment_method = ?", (shown["id"],)).fetchone()
    if row is None:
        return Instrument(shown, Card(), assumed=True, spent=False)
    card = cards.blueprint(row["blueprint"]) or Card()
    return Instrument(shown, card, assumed=bool(row["assumed"]), spent=bool(row["spent"]))


def _make(
    change: Change, method_id: str, name: str, card: Card, customer: str | None, *, assumed: bool = False
) -> Instrument:
    shown = stripe_objects.payment_method(method_id, card, customer, change.now)
    change.save(shown)
    change.connection.execute(
        "INSERT INTO instruments (payment_method, blueprint, assumed) VALUES (?, ?, ?)", (method_id, name, assumed)
    )
    return Instrument(shown, card, assumed=assumed, spent=False)


def check_usable(found: Instrument, customer: str | None) -> None:
    """Refuse a payment method that is used up or somebody else's. Raises Refused."""
    owner = found.shown["customer"]
    if found.assumed:
        return
    if found.spent and owner is None:
        raise Refused(stripe_errors.error(400, _SPENT))
    if owner is not None and customer is None:
        message = (
            f"The `payment_method` parameter supplied {found.shown['id']} belongs to the Customer {owner}. Please"
            " include the Customer in the `customer` parameter on the PaymentIntent."
        )
        raise Refused(stripe_errors.error(400, message, param="payment_method"))
    if owner is not None and owner != customer:
        message = (
            f"The customer does not have a payment method with the ID {found.shown['id']}. The payment method must be"
            " attached to the customer."
        )
        raise Refused(stripe_errors.error(400, message, code="resource_missing", param="payment_method"))


def spend(change: Change, found: Instrument) -> None:
    """A charge was tried with it: without a customer, that was its only one, however it ended."""
    change.connection.execute("UPDATE instruments SET spent = 1 WHERE payment_method = ?", (found.shown["id"],))


def give_to(change: Change, found: Instrument, customer: str) -> Json:
    """Attach it to a customer. Raises Refused."""
    owner = found.shown["customer"]
    if owner == customer and not found.assumed:
        return found.shown
    if owner is not None and not found.assumed:
        raise Refused(
            stripe_errors.error(400, "The payment method you provided has already been attached to a customer.")
        )
    found.shown["customer"] = customer
    change.save(found.shown)
    change.connection.execute(
        "UPDATE instruments SET assumed = 0, spent = 0 WHERE payment_method = ?", (found.shown["id"],)
    )
    change.emit("payment_method.attached", found.shown)
    return found.shown


def attach(change: Change, name: str, customer: str) -> Json:
    """Attach the payment method of this name to a customer that exists, if its card allows it. Raises Refused."""
    found = find(change, name, None, "payment_method")
    if found.spent and found.shown["customer"] is None:
        raise Refused(stripe_errors.error(400, _SPENT_FOR_GOOD))
    if found.card.decline and not (found.card.attaches or found.card.slow):
        raise Refused(_card_error(found.card.decline, found.shown))
    return give_to(change, found, customer)


def _card_error(decline: cards.Decline, shown: Mapping[str, Any]) -> Answer:
    return stripe_errors.error(
        402,
        decline.message,
        kind="card_error",
        code=decline.code,
        decline_code=decline.decline_code,
        payment_method=shown,
    )


def detach(call: Call) -> Answer:
    """POST /v1/payment_methods/{id}/detach: it can never be used or attached again."""
    change = Change.asked_by(call)
    shown = change.need("payment_method", call.path_id or "", "payment_method", 404)
    if (owner := shown["customer"]) is None:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise Refused(stripe_errors.error(400, message))
    shown["customer"] = None
    change.save(shown)
    change.connection.execute("UPDATE instruments SET assumed = 0, spent = 1 WHERE payment_method = ?", (shown["id"],))
    change.emit("payment_method.detached", shown, {"customer": owner})
    return Answer(200, shown)
