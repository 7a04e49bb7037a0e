"""Money held and not yet taken: captured once, released by a cancel, or released by itself after seven days.

Stripe docs, "Place a hold on a payment method": a capture may take less than was held, and the rest is released.
"""

from __future__ import annotations

import sqlite3

from fakes.house.pipeline import Refused
from fakes.stripe import balance
from fakes.stripe import errors as stripe_errors
from fakes.stripe.change import Change
from fakes.stripe.objects import Json

# Stripe docs, "Place a hold on a payment method": most cards, charged online.
HOLD_SECONDS = 7 * 24 * 3600

SCHEMA = """
CREATE TABLE IF NOT EXISTS holds (payment_intent TEXT PRIMARY KEY, expires_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS holds_by_end ON holds (expires_at);
"""


def hold(change: Change, intent: Json, charge: Json) -> None:
    """Reserve the money; it moves at the capture."""
    expires_at = change.now + HOLD_SECONDS
    if "card" in charge["payment_method_details"]:
        charge["payment_method_details"]["card"]["capture_before"] = expires_at
    intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
    change.connection.execute("INSERT INTO holds VALUES (?, ?)", (intent["id"], expires_at))
    change.save(charge, intent)
    change.emit("charge.succeeded", charge)
    change.emit("payment_intent.amount_capturable_updated", intent)


def take(change: Change, intent: Json, amount: int | None) -> None:
    """Capture up to what is held, once; the rest is released. Raises Refused."""
    held = intent["amount_capturable"]
    amount = held if amount is None else amount
    if not 0 < amount <= held:
        message = f"The amount to capture must be at least 1 and at most the {held} that can be captured."
        raise Refused(stripe_errors.error(400, message, code="amount_too_large", param="amount_to_capture"))
    charge = change.load("charge", intent["latest_charge"]) or {}
    line = balance.transaction(
        "charge",
        charge["id"],
        amount,
        currency=charge["currency"],
        now=change.now,
        description=charge["description"],
    )
    charge |= {
        "amount_captured": amount,
        # What was not taken counts as given back, as on Stripe's own charges: amount - amount_refunded is what is left.
        "amount_refunded": intent["amount"] - amount,
        "balance_transaction": line["id"],
        "captured": True,
        "metadata": intent["metadata"],
    }
    intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0}
    _forget(change, intent)
    change.move("capture", charge, amount, intent["metadata"])
    change.save(line, charge, intent)
    change.emit("charge.captured", charge)
    change.emit("payment_intent.succeeded", intent)


def cancel(change: Change, intent: Json, reason: str | None, *, expired: bool = False) -> None:
    """End a PaymentIntent for good; what it held is released."""
    held = intent["status"] == "requires_capture"
    intent |= {
        "status": "canceled",
        "amount_capturable": 0,
        "canceled_at": change.now,
        "cancellation_reason": reason,
        "next_action": None,
        "processing": None,
    }
    charge = change.load("charge", intent["latest_charge"]) if held else None
    if charge:
        charge |= {"amount_refunded": charge["amount"], "refunded": True}
        _forget(change, intent)
        change.save(charge)
        change.emit("charge.expired" if expired else "charge.refunded", charge)
    change.save(intent)
    change.emit("payment_intent.canceled", intent)


def _forget(change: Change, intent: Json) -> None:
    change.connection.execute("DELETE FROM holds WHERE payment_intent = ?", (intent["id"],))


def expire(connection: sqlite3.Connection, at: float) -> None:
    """Release the holds that ran out, each dated to its own end. Done before anything is shown or changed."""
    overdue = connection.execute(
        "SELECT payment_intent, expires_at FROM holds WHERE expires_at <= ? ORDER BY expires_at", (int(at),)
    ).fetchall()
    for row in overdue:
        change = Change(connection, row["expires_at"])
        intent = change.load("payment_intent", row["payment_intent"])
        if intent and intent["status"] == "requires_capture":
            cancel(change, intent, "automatic", expired=True)
