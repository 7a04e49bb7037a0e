"""The journal of an effect: append-only facts, written by the statements that make them true."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

_OF = text("""
select at, fact, attempt, actor, evidence from journal where effect_id = cast(:id as uuid) order by id limit :limit
""")

FACTS_SHOWN_MAX = 1_000


def of(connection: Connection, effect_id: str) -> list[dict[str, Any]]:
    """The facts of one effect, oldest first (at most FACTS_SHOWN_MAX)."""
    rows = connection.execute(_OF, {"id": effect_id, "limit": FACTS_SHOWN_MAX}).mappings()
    return [dict(row) for row in rows]


_ABSORBED = text("""
select count(*) from (
    select effect_id from journal where fact = 'claimed' and attempt > 1
    union all select effect_id from journal where fact in ('leased_out', 'late_answer')) absorbed
""")


def count_absorbed(connection: Connection) -> int:
    """Attempts beyond the first, lost leases and late answers: what a system without a ledger might have doubled."""
    return int(connection.execute(_ABSORBED).scalar_one())
