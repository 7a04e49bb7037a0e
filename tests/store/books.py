"""The books as a test reads them: raw SQL beside the code under test, and the invariants after every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row
from uuid_utils import uuid7

from service.core.effect import Attempt, Order, Policy
from service.core.keys import fingerprint
from service.engine.accept import accept_alone
from service.store import attempts, database
from service.store.attempts import Limits

ACTOR = "test"
LIMITS = Limits(lease=90.0, budget=60, age_limit=3 * 86400.0)

# Which fact may be the last one that speaks of a state (I8). `leased_out` is followed by `claimed` in one statement.
_EXPLAINS = {
    "pending": {"accepted", "deferred", "unparked", "replayed", "absent", "resolved"},
    "executing": {"claimed"},
    "awaiting": {"awaiting", "deferred", "replayed", "verified"},
    "unknown": {"unknown", "leased_out", "deferred", "replayed"},
    "parked": {"parked"},
    "succeeded": {"succeeded", "resolved", "verified"},
    "failed": {"failed", "resolved", "verified"},
}
_SILENT = ("progressed", "late_answer", "hinted", "recovered", "verified", "erased")


def order(key: str = "order:17:charge", *, kind: str = "charge", amount: int = 4200, **changes: Any) -> Order:
    """An order as the tasks make it."""
    money = {"amount": amount, "currency": "eur"} if kind == "charge" else {}
    request = {**money, "payment_method": "pm_1"} if kind == "charge" else {"to": "ada@example.test", "subject": "Hi"}
    about = {
        "id": str(uuid7()),
        "tenant": "default",
        "kind": kind,
        "dedupe_key": key,
        "fingerprint": fingerprint(kind, request),
        "request": request,
        "lane": kind,
        "policy": Policy.AT_MOST_ONCE,
        **money,
    }
    return Order(**{**about, **changes})


def orders(count: int, **changes: Any) -> list[Order]:
    return [order(f"order:{i}:charge", **changes) for i in range(count)]


class Books:
    """One test's database, seen from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return self._connection.execute(query, values or None).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """The only value of the only row."""
        [row] = self.rows(query, *values)
        [value] = row.values()
        return value

    def run(self, statement: str, *values: Any) -> int:
        return self._connection.execute(statement, values or None).rowcount

    def count(self, table: str) -> int:
        return int(self.one(f"select count(*) from {table}"))

    def effect(self, effect_id: str) -> dict[str, Any]:
        [row] = self.rows("select * from effects where id = %s", effect_id)
        return row

    def duty(self, effect_id: str) -> dict[str, Any] | None:
        """The outbox row; None when there is none."""
        found = self.rows("select * from outbox where effect_id = %s", effect_id)
        return found[0] if found else None

    def facts(self, effect_id: str) -> list[str]:
        found = self.rows("select fact from journal where effect_id = %s order by id", effect_id)
        return [row["fact"] for row in found]

    # --- time, without waiting ---------------------------------------------------------------------------------

    def end_lease(self, effect_id: str) -> None:
        """As if the attempt had been silent for longer than its lease."""
        ended = "update effects set lease_until = now() - interval '1 second' where id = %s and state = 'executing'"
        assert self.run(ended, effect_id) == 1

    def make_due(self, effect_id: str) -> None:
        """As if the backoff, the eta or the redelivery time were over."""
        self.run("update effects set not_before = null where id = %s", effect_id)
        self.run("update outbox set available_at = now() - interval '1 second' where effect_id = %s", effect_id)

    # --- invariants --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """I7 (an outbox row exactly while unsettled), I8 (the journal explains the state; attempts only grow)."""
        assert (
            self.rows(
                """select e.id, e.state from effects e left join outbox o on o.effect_id = e.id
               where (o.effect_id is null) <> (e.state in ('succeeded', 'failed'))"""
            )
            == []
        ), "I7"
        assert (
            self.rows("select effect_id from outbox o left join effects e on e.id = o.effect_id where e.id is null")
            == []
        )
        assert (
            self.rows(
                """select e.id from effects e join outbox o on o.effect_id = e.id
               where (e.state = 'parked') <> (o.road = 'parked')"""
            )
            == []
        ), "I2: parked effects have a reason"
        last = self.rows(
            """select distinct on (e.id) e.id, e.state, e.attempt as now, j.fact, j.attempt
               from effects e join journal j on j.effect_id = e.id and not j.fact = any(%s)
               order by e.id, j.id desc""",
            list(_SILENT),
        )
        assert len(last) == self.count("effects"), "I8: every effect has a journal"
        for row in last:
            assert row["fact"] in _EXPLAINS[row["state"]], f"I8: {row}"
        assert (
            self.rows(
                """select * from (select attempt, fact, lag(attempt) over (partition by effect_id order by id) as before
               from journal where fact <> 'late_answer') j where attempt < before"""
            )
            == []
        ), "I8: attempts only grow"

    # --- the usual steps ---------------------------------------------------------------------------------------

    def accept(self, *asked: Order) -> list[str]:
        made = asked or (order(),)
        ids = [answer.id for answer in accept_alone(made, actor=ACTOR)]
        self.check()
        return ids

    def claim(self, *ids: str, limits: Limits = LIMITS) -> list[Attempt]:
        with database.statement() as connection:
            claimed = attempts.claim(connection, ids, limits, actor=ACTOR)
        self.check()
        return claimed

    def settle(self, *settlements: attempts.Settlement) -> set[str]:
        with database.statement() as connection:
            owned = attempts.settle(connection, settlements, actor=ACTOR)
        self.check()
        return {effect_id for effect_id, _ in owned}


@contextmanager
def opened(url: str) -> Iterator[Books]:
    """The books, checked once more when the test is over."""
    books = Books(url)
    try:
        yield books
        books.check()
    finally:
        books.close()
