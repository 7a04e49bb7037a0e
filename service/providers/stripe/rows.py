"""Objects of Stripe as plain rows, each with the effect it names; what an audit does not compare is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from service.providers.stripe.marks import mark_of

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)

MONEY_TYPES = frozenset(("charge", "payment", "refund", "payment_refund")) | frozenset(
    ("refund_failure", "payment_refund_failure", "payment_failure_refund", "payment_reversal")
)
"""Balance lines that an effect of ours can cause, and those that undo one; payouts, fees of their own and disputes are
another comparison."""


class Intent(NamedTuple):
    """A PaymentIntent. `received` is what was really taken, in minor units."""

    id: str
    created: datetime
    status: str
    amount: int
    received: int
    currency: str
    effect: str | None
    charge: str | None
    customer: str | None


class Refund(NamedTuple):
    """A refund."""

    id: str
    created: datetime
    status: str
    amount: int
    currency: str
    effect: str | None
    intent: str | None
    charge: str | None


class Movement(NamedTuple):
    """A balance line with what it stands for. `amount` is gross and negative when money leaves; `fee` is apart.

    `amount` is in the account's currency; what the customer paid or got back is `source_amount`.
    """

    id: str
    created: datetime
    type: str
    amount: int
    fee: int
    currency: str
    source: str
    intent: str | None
    effect: str | None
    source_amount: int
    source_currency: str


class SeenEvent(NamedTuple):
    """An event: which request made it, and about what."""

    id: str
    created: datetime
    type: str
    object_id: str
    intent: str | None
    effect: str | None
    key: str | None
    amount: int | None
    currency: str | None


Row = Intent | Refund | Movement | SeenEvent


def intent(thing: Mapping[str, Any]) -> Intent:
    """A PaymentIntent; its charge may be expanded."""
    charge = thing.get("latest_charge")
    return Intent(
        str(thing["id"]),
        _time(thing),
        str(thing["status"]),
        int(thing["amount"]),
        int(thing.get("amount_received") or 0),
        str(thing["currency"]),
        _effect(thing),
        _id(charge),
        _id(thing.get("customer")),
    )


def refund(thing: Mapping[str, Any]) -> Refund:
    """A refund."""
    return Refund(
        str(thing["id"]),
        _time(thing),
        str(thing["status"]),
        int(thing["amount"]),
        str(thing["currency"]),
        _effect(thing),
        _id(thing.get("payment_intent")),
        _id(thing.get("charge")),
    )


def movement(thing: Mapping[str, Any]) -> Movement | None:
    """A balance line whose source is expanded; None when no effect of ours can have caused it."""
    if thing.get("type") not in MONEY_TYPES:
        return None
    source = thing.get("source")
    about = source if isinstance(source, Mapping) else {}
    sign = -1 if thing["amount"] < 0 else 1
    # Of a charge that was captured in part, only that part has moved.
    moved = about.get("amount_captured") or about.get("amount") or abs(thing["amount"])
    return Movement(
        str(thing["id"]),
        _time(thing),
        str(thing["type"]),
        int(thing["amount"]),
        int(thing.get("fee") or 0),
        str(thing["currency"]),
        _id(source) or str(thing["id"]),
        _id(about.get("payment_intent")),
        _effect(about),
        sign * int(moved),
        str(about.get("currency") or thing["currency"]),
    )


def event(thing: Mapping[str, Any]) -> SeenEvent:
    """An event, without what it says of the object but amount and currency."""
    about = (thing.get("data") or {}).get("object") or {}
    request = thing.get("request") or {}
    is_intent = about.get("object") == "payment_intent"
    return SeenEvent(
        str(thing["id"]),
        _time(thing),
        str(thing["type"]),
        str(about.get("id") or ""),
        _id(about if is_intent else about.get("payment_intent")),
        _effect(about),
        request.get("idempotency_key"),
        about.get("amount"),
        about.get("currency"),
    )


def _time(thing: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(int(thing["created"]), UTC)


def _id(thing: object) -> str | None:
    """An id, whether the object stands in its place or not."""
    found = thing.get("id") if isinstance(thing, Mapping) else thing
    return found if isinstance(found, str) else None


def _effect(thing: Mapping[str, Any]) -> str | None:
    """The effect that an object names, in the one spelling of a UUID; anything else names none."""
    found = mark_of(thing)
    return found.lower() if found and _UUID.match(found) else None
