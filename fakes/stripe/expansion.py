"""`expand[]`: ids in an answer replaced by what they stand for, four levels deep.

Stripe docs, "Expanding Responses".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from fakes.stripe import balance, objects
from fakes.stripe.objects import Json, Page, Wish

LEVELS_MAX = 4

_EXPANDABLE: dict[str, dict[str, tuple[str, ...]]] = {
    "balance_transaction": {"source": ("charge", "refund")},
    "charge": {
        "balance_transaction": ("balance_transaction",),
        "customer": ("customer",),
        "failure_balance_transaction": ("balance_transaction",),
        "payment_intent": ("payment_intent",),
        "refunds": ("refund",),
    },
    "customer": {},
    "event": {},
    "payment_intent": {
        "customer": ("customer",),
        "latest_charge": ("charge",),
        "payment_method": ("payment_method",),
    },
    "payment_method": {"customer": ("customer",)},
    "refund": {
        "balance_transaction": ("balance_transaction",),
        "charge": ("charge",),
        "customer": ("customer",),
        "failure_balance_transaction": ("balance_transaction",),
        "payment_intent": ("payment_intent",),
    },
}


class BadExpansion(ValueError):
    """A property that cannot be expanded; the argument is the path."""


def expanded(connection: sqlite3.Connection, body: Json, paths: Sequence[str], now: int) -> Json:
    """The answer with the paths expanded; what is asked for and not there stays as it is. Raises BadExpansion."""
    for path in paths:
        steps = path.split(".")
        if len(steps) > LEVELS_MAX:
            raise BadExpansion(path)
        body = _along(connection, body, steps, path, now)
    return body


def _along(connection: sqlite3.Connection, thing: Json, steps: list[str], path: str, now: int) -> Json:
    head, *rest = steps
    if thing.get("object") in ("list", "search_result"):
        if head != "data" or not rest:
            raise BadExpansion(path)
        return {**thing, "data": [_along(connection, each, rest, path, now) for each in thing["data"]]}
    kinds = _EXPANDABLE[thing["object"]].get(head)
    if kinds is None:
        raise BadExpansion(path)
    found = _found(connection, thing, head, kinds, now)
    if rest and isinstance(found, dict):
        found = _along(connection, found, rest, path, now)
    return {**thing, head: found}


def _found(connection: sqlite3.Connection, thing: Json, name: str, kinds: tuple[str, ...], now: int) -> Any:
    if name == "refunds":
        data, more = objects.listed(connection, Wish("refund", {"charge = ?": thing["id"]}), Page())
        url = f"/v1/charges/{thing['id']}/refunds"
        return {"object": "list", "data": data, "has_more": more, "url": url}
    known = thing.get(name)
    if not isinstance(known, str):
        return known
    for kind in kinds:
        if found := objects.load(connection, kind, known):
            return balance.as_of(found, now) if kind == "balance_transaction" else found
    return known
