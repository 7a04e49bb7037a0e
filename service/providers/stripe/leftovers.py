"""What Stripe holds of ours since a moment, page by page: PaymentIntents and refunds that carry an effect's mark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.providers.stripe.api import StripeApi
from service.providers.stripe.marks import DEDUPE, mark_of
from service.providers.stripe.pages import pages

_LISTS = {"charge": "/v1/payment_intents", "refund": "/v1/refunds"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_HASH = re.compile(r"[0-9a-f]{64}\Z")
# Money has moved, is held, or may still move without another word from us (Stripe: PaymentIntent and Refund statuses).
_MOVED = {
    "charge": frozenset(("succeeded", "processing", "requires_capture", "requires_action")),
    "refund": frozenset(("succeeded", "pending", "requires_action")),
}


@dataclass(frozen=True, slots=True)
class Leftover:
    """One object. `effect_id` is what it says of itself; `moved`: money has moved with it, or may."""

    kind: str
    ref: str
    effect_id: str
    dedupe_hash: str | None
    amount: int
    currency: str
    status: str
    created_at: datetime
    moved: bool


def leftovers(api: StripeApi, since: datetime, *, seconds: float) -> Iterator[list[Leftover]]:
    """Each page's objects of ours; `seconds` for one page. Raises DependencyUnavailable."""
    for kind, path in _LISTS.items():
        for page in pages(api, path, {"created": {"gte": int(since.timestamp())}}, seconds=seconds):
            yield [found for thing in page if (found := _read(kind, thing)) is not None]


def _read(kind: str, thing: Mapping[str, Any]) -> Leftover | None:
    """None for what others have made in the same account."""
    effect_id = mark_of(thing)
    if effect_id is None or not _UUID.match(effect_id):
        return None
    name, status = mark_of(thing, DEDUPE), str(thing.get("status"))
    return Leftover(
        kind,
        str(thing["id"]),
        effect_id,
        name if name and _HASH.match(name) else None,
        int(thing["amount"]),
        str(thing["currency"]),
        status,
        datetime.fromtimestamp(int(thing["created"]), UTC),
        status in _MOVED[kind],
    )
