"""Why what is unsettled is not settled yet: each row under one cause, and what is held back is nobody's delay."""

from __future__ import annotations

from service.core.state import State
from service.store import causes, circuits, lanes, outbox
from service.store.database import statement
from tests.store.answers import parked, waiting
from tests.store.books import Books, orders


def found(books: Books) -> dict[str, int]:
    del books
    with statement() as connection:
        return {row["cause"]: row["count"] for row in causes.of(connection)}


def late(books: Books) -> float | None:
    del books
    with statement() as connection:
        seconds: float | None = outbox.stats(connection)["oldest_unpublished_seconds"]
    return seconds


def test_each_row_has_exactly_one_cause(books):
    ids = books.accept(*orders(7))
    fresh, sent, live, doubt, aside, later, again = ids
    books.run("update outbox set deliveries = 1, road = 'published' where effect_id = %s", sent)
    attempts = {attempt.id: attempt for attempt in books.claim(live, doubt, aside, again)}
    books.settle(waiting(attempts[doubt], State.UNKNOWN, "unknown"), parked(attempts[aside]), waiting(attempts[again]))
    books.run("update outbox set road = 'later', available_at = now() + interval '1 hour' where effect_id = %s", later)
    assert found(books) == {
        "never published": 1,
        "published and not picked up": 1,
        "started and not finished": 1,
        "unknown": 1,
        "parked": 1,
        "scheduled": 1,
        "tried, comes again": 1,
    }
    assert fresh


def test_what_a_pause_or_an_open_circuit_holds_back_is_not_late(books):
    books.accept(*orders(1))
    assert late(books) is not None
    with statement() as connection:
        circuits.failed(connection, "stripe", "charge", "away", threshold=1, probe=False)
    assert late(books) is None
    assert found(books) == {"its provider is away": 1}
    books.run("delete from circuits")
    books.run("update outbox set road = 'held'")
    with statement() as connection:
        lanes.pause(connection, "charge", actor="me", reason="INC-1")
    assert late(books) is None
    assert found(books) == {"held in a paused lane": 1}
