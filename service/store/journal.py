"""The journal of an effect: append-only facts, written by the statements that make them true; kept by months.

The months are partitions, made ahead; a fact that no month takes lies in a partition of its own, so that none is ever
refused. An old month goes in one piece, and only when no effect that can have facts in it is still of interest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

# Each month is asked by its index, and none that ended before the effect began: what is looked at is mostly young, and
# ten years are 120 months. Later ones are all asked: an effect may live for years. Both times are the database's own; a
# month is more than its clock is ever set back by a failover. As a value, so that Postgres leaves months out before it
# opens them.
OF = text("""
select at, fact, attempt, actor, evidence from journal
where effect_id = cast(:id as uuid)
  and at >= coalesce(cast(:since as timestamptz), '-infinity') - interval '31 days'
order by id limit :limit
""")

FACTS_SHOWN_MAX = 1_000
MONTHS_AHEAD = 3
"""So that a quarter without `beat` or an upgrade changes nothing."""

_AHEAD = text("select unnest(counterfoil_journal_months(:ahead))")

_BOUND = "(regexp_match(pg_get_expr(c.relpartbound, c.oid), '{side} \\(''([^'']+)''\\)'))[1]::timestamptz"
_MONTHS = text(f"""
select c.relname as name, {_BOUND.format(side="FROM")} as since, {_BOUND.format(side="TO")} as until,
       greatest(c.reltuples, 0)::bigint as facts, pg_total_relation_size(c.oid) as bytes
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'journal'::regclass order by until nulls last
""")

# Whatever has facts in a month was accepted before its end. Unsettled effects are few and stand in the outbox; those
# that were settled lately are found by the summary of blocks (effects_settled).
_NEEDED = text("""
select exists (select from outbox o join effects e on e.id = o.effect_id where e.created_at < :until) as unsettled,
       exists (select from effects e where e.settled_at >= :settled_before and e.created_at < :until) as young
""")
_DROP = text("select counterfoil_journal_drop(:name, :settled_before)")
_PATIENT = text("select set_config('statement_timeout', :patience, true)")
# The question before a month is dropped is asked of every effect that was settled lately; it holds no lock.
DROP_PATIENCE = "10min"


@dataclass(frozen=True, slots=True)
class Month:
    """One partition. `since` is None for the first one, `until` for the one that takes what no month does.

    `facts` is the planner's estimate.
    """

    name: str
    since: datetime | None
    until: datetime | None
    facts: int
    bytes: int


def of(connection: Connection, effect_id: str, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """The facts of one effect, oldest first (at most FACTS_SHOWN_MAX); quicker for who knows when it was accepted."""
    rows = connection.execute(OF, {"id": effect_id, "since": since, "limit": FACTS_SHOWN_MAX}).mappings()
    return [dict(row) for row in rows]


def make_months(connection: Connection, ahead: int = MONTHS_AHEAD) -> list[str]:
    """Make the months up to so many ahead that are missing; their names. Two at once take turns."""
    return list(connection.execute(_AHEAD, {"ahead": ahead}).scalars())


def months(connection: Connection) -> list[Month]:
    """The partitions, oldest first."""
    return [Month(**row) for row in connection.execute(_MONTHS).mappings()]


def kept_from(connection: Connection) -> datetime | None:
    """From when on the facts are kept; None when no month was ever dropped."""
    found = months(connection)
    return found[0].since if found else None


def needed(connection: Connection, month: Month, *, settled_before: datetime) -> str | None:
    """Why the month may not go: 'unsettled' or 'young' effects can have facts in it; None when it may."""
    connection.execute(_PATIENT, {"patience": DROP_PATIENCE})
    row = connection.execute(_NEEDED, {"until": month.until, "settled_before": settled_before}).one()
    return "unsettled" if row.unsettled else "young" if row.young else None


def drop(connection: Connection, month: Month, *, settled_before: datetime) -> None:
    """Let a month go, in the caller's transaction. The database asks once more, and refuses what is needed."""
    connection.execute(_PATIENT, {"patience": DROP_PATIENCE})
    connection.execute(_DROP, {"name": month.name, "settled_before": settled_before})


_ABSORBED = text("""
select count(*) from (
    select effect_id from journal where fact = 'claimed' and attempt > 1
    union all select effect_id from journal where fact in ('leased_out', 'late_answer')) absorbed
""")


def count_absorbed(connection: Connection) -> int:
    """Attempts beyond the first, lost leases and late answers: what a system without a ledger might have doubled."""
    return int(connection.execute(_ABSORBED).scalar_one())
