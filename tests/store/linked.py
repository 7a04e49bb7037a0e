"""A charge in any state and what acts upon it, as the tasks make them, for the tests of the order between the two."""

from __future__ import annotations

from typing import Any

import tasks
from service.core.effect import Attempt, Order
from service.core.state import State
from service.store import database, links, outbox
from tests.store.answers import final, parked, waiting
from tests.store.books import Books, order

HELD_BACK_SECONDS = 60.0
MONEY = {"amount": 4200, "currency": "eur"}


def upon(charge: str, kind: str = "refund", *, key: str | None = None, **options: Any) -> Order:
    """An order that acts upon the charge."""
    request = {"charge": charge, **({} if kind == "cancel" else MONEY)}
    return tasks.task_of(kind).order(None, request, dedupe_key=key or f"{charge}:{kind}", **options)


def pair(books: Books, kind: str = "refund") -> tuple[str, str]:
    """A pending charge and what acts upon it."""
    [charge] = books.accept(order(f"order:{books.count('effects')}:charge"))
    [other] = books.accept(upon(charge, kind))
    return charge, other


def held(attempt: Attempt) -> Any:
    """The provider holds the money."""
    detail = {"status": "requires_capture", "payment_intent": f"pi_{attempt.id}"}
    return waiting(
        attempt,
        State.AWAITING,
        "awaiting",
        provider="stripe",
        provider_ref=f"pi_{attempt.id}",
        outcome=detail,
        after_seconds=3600.0,
    )


def bring(books: Books, charge: str, state: str) -> None:
    """Let the charge come to stand so, through the store's own statements."""
    if state == "pending":
        return
    [attempt] = books.claim(charge)
    settlements = {
        "succeeded": lambda: final(attempt),
        "failed": lambda: final(attempt, State.FAILED, outcome={"code": "card_declined"}),
        "unknown": lambda: waiting(attempt, State.UNKNOWN, "unknown"),
        "deferred": lambda: waiting(attempt),
        "processing": lambda: waiting(attempt, State.AWAITING, "awaiting", outcome={"status": "processing"}),
        "held": lambda: held(attempt),
        "parked": lambda: parked(attempt),
    }
    if state != "executing":
        books.settle(settlements[state]())


def publish() -> list[str]:
    """What a relay does: take what is due."""
    with database.transaction() as connection:
        return [row.effect_id for row in outbox.take(connection, 500, 105.0)]


def hold_back(*ids: str) -> list[str]:
    """What a worker does with those it could not claim."""
    with database.statement() as connection:
        return links.hold_back(connection, ids, seconds=HELD_BACK_SECONDS)


def deliver(books: Books, *ids: str) -> list[str]:
    """What a message does: claim, and hold back what is too early; the ids of what was begun."""
    begun = [attempt.id for attempt in books.claim(*ids)]
    hold_back(*ids)
    return begun


def stats() -> dict[str, Any]:
    with database.statement() as connection:
        return outbox.stats(connection)
