"""One effect, seen quickly: how it stands, what time has done to it, and whether both sides' books agree about it.

The oracle reads everything, which at the thousandth point is a thousand effects; here it is asked about the one that was
disturbed and its relations. A test that uses this ends with the oracle's word on everything.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.flow.oracle import FINAL, Books, _grouped, _letter_effect, _money_effect
from tests.flow.system import System

# More than the lease, the redelivery and the first backoffs of these tests.
PASSED_SECONDS = 30
Row = dict[str, Any]

_RELATED = "(id = %(id)s or caused_by = %(id)s or id = (select concerns from effects where id = %(id)s))"
# A dead holder's lease runs out for everybody alive; nobody else's does.
_LEASES_PASS = (
    f"update effects set lease_until = lease_until - interval '{PASSED_SECONDS} seconds' where state = 'executing'"
)
_OPEN = "settled_at is null and not (state = 'executing' and lease_until > now())"
# Each statement commits by itself: locks on both tables at once could make one of ours the victim of a deadlock.
_DUTIES_PASS = (
    f"update effects set not_before = not_before - interval '{PASSED_SECONDS} seconds' where {_OPEN}",
    (
        f"update outbox set available_at = available_at - interval '{PASSED_SECONDS} seconds'"
        f" where road <> 'parked' and effect_id in (select id from effects where {_OPEN})"
    ),
    "select pg_notify('counterfoil', '')",
)


class Glance:
    """One connection for all looks of a test."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._db = psycopg.connect(system.database, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self._db.close()

    def done(self, effect_id: str) -> bool:
        """Settled or parked, with the outbox saying the same."""
        row = self._db.execute(
            "select e.state, o.road from effects e left join outbox o on o.effect_id = e.id where e.id = %s",
            (effect_id,),
        ).fetchone()
        return row is not None and (
            (row["state"] in FINAL and row["road"] is None) or (row["state"] == "parked" and row["road"] == "parked")
        )

    def leases_pass(self) -> None:
        """Whoever holds an effect, holds it no more."""
        self._db.execute(_LEASES_PASS)

    def duties_pass(self) -> None:
        """Past every backoff and redelivery of what nobody alive holds, and the relay is rung for."""
        for statement in _DUTIES_PASS:
            self._db.execute(statement)

    def violations(self, effect_id: str) -> list[str]:
        """The oracle's sentences about this effect and its relations."""
        return self._system.oracle.violations(self._books(effect_id))

    def _books(self, effect_id: str) -> Books:
        effects = self._rows(f"select * from effects where {_RELATED}", effect_id)
        ids = f"effect_id in (select id from effects where {_RELATED})"
        outbox = self._rows(f"select * from outbox where {ids}", effect_id)
        journal: dict[str, list[Row]] = defaultdict(list)
        for fact in self._rows(f"select * from journal where {ids} order by effect_id, id", effect_id):
            journal[str(fact["effect_id"])].append(fact)
        known = {str(row["id"]): row for row in effects}
        asked, money, letters = [], [], []
        for each, effect in known.items():
            if effect["kind"] == "email":
                asked += self._system.mail.admin(f"requests?key={each}")["requests"]
                letters += self._system.mail.admin(f"mailbox?recipient={effect['request']['to']}")["mail"]
            else:
                asked += self._system.stripe.admin(f"requests?key={each}")["requests"]
                money += self._system.stripe.admin(f"ledger?effect_id={each}")["money"]
        books = Books(known, {str(row["effect_id"]): row for row in outbox}, journal, money, letters, asked)
        books.money_of = _grouped(money, _money_effect)
        books.letters_of = _grouped(letters, _letter_effect)
        return books

    def _rows(self, query: str, effect_id: str) -> list[Row]:
        return self._db.execute(query, {"id": effect_id}).fetchall()
