"""Balance transactions: what each movement of money did to the account, fee and net included.

Stripe docs, "Balance transaction types" and "Reporting categories". They are written when the money moves: at the
charge, at the capture of a hold, at the refund, and once more when a refund fails.
"""

from __future__ import annotations

from typing import Literal

from fakes.stripe.objects import Json
from fakes.stripe.shapes import new_id

Kind = Literal["charge", "payment", "refund", "payment_refund", "refund_failure"]

# Stripe's published price for European cards; any would do, as long as fee and net are there to be reconciled.
FEE_PER_MILLE = 14
FEE_FIXED_MINOR = 25
# Stripe docs, "Payout schedules": money becomes available after some days.
AVAILABLE_AFTER_SECONDS = 7 * 24 * 3600

_CATEGORIES = {
    "charge": "charge",
    "payment": "charge",
    "refund": "refund",
    "payment_refund": "refund",
    "refund_failure": "refund_failure",
}


def fee_of(amount: int) -> int:
    """1.4 % and 25 minor units, rounded half up."""
    return (amount * FEE_PER_MILLE + 500) // 1000 + FEE_FIXED_MINOR


def transaction(
    kind: Kind, source: str, amount: int, *, currency: str, now: int, description: str | None = None
) -> Json:
    """One line of the account's balance; `amount` is negative when money leaves."""
    fee = fee_of(amount) if kind in ("charge", "payment") else 0
    details = [
        {
            "amount": fee,
            "application": None,
            "currency": currency,
            "description": "Stripe processing fees",
            "type": "stripe_fee",
        }
    ]
    return {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": now + AVAILABLE_AFTER_SECONDS,
        "balance_type": "payments",
        "created": now,
        "currency": currency,
        "description": description,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": details if fee else [],
        "net": amount - fee,
        "reporting_category": _CATEGORIES[kind],
        "source": source,
        "status": "pending",
        "type": kind,
    }


def as_of(transaction: Json, now: int) -> Json:
    """The transaction as it looks now: it becomes available by itself."""
    return {**transaction, "status": "available" if now >= transaction["available_on"] else "pending"}
