"""Effects: accept them in the caller's transaction, find them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from service.core.effect import Order
from service.core.state import FINAL, State

_INPUT = """
    select id, tenant, kind, dedupe_key, fingerprint, request, lane, policy, priority,
           coalesce(not_before, statement_timestamp() + make_interval(secs => after_seconds)) as not_before,
           amount, currency, caused_by, concerns, ready_when, context
    from jsonb_to_recordset(cast(:orders as jsonb)) as o (
        id uuid, tenant text, kind text, dedupe_key text, fingerprint text, request jsonb, lane text, policy text,
        priority smallint, not_before timestamptz, after_seconds float8, amount bigint, currency text, caused_by uuid,
        concerns uuid, ready_when text, context jsonb)
"""

# One statement for one effect or ten thousand. Rows go in by key order, so that two callers with overlapping keys
# queue behind each other instead of deadlocking. W1: until the caller commits, none of it exists.
_ACCEPT = text(f"""
with input as materialized ({_INPUT}),
new as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy, not_before,
                         amount, currency, caused_by, concerns, ready_when, context)
    select id, tenant, kind, dedupe_key, fingerprint, request, 'pending', policy, not_before,
           amount, currency, caused_by, concerns, ready_when, context
    from input order by tenant, kind, dedupe_key
    on conflict (tenant, kind, dedupe_key) do nothing
    returning id
), duty as (
    insert into outbox (effect_id, kind, lane, priority, road, available_at)
    select id, kind, lane, priority, case when not_before > now() then 'later' else 'fresh' end,
           coalesce(not_before, now())
    from input join new using (id)
), fact as (
    insert into journal (effect_id, fact, attempt, actor) select id, 'accepted', 0, :actor from new
)
select cast(id as text) from new
""")

_FIND = text(f"""
with input as materialized ({_INPUT})
select cast(i.id as text) as asked, cast(e.id as text) as id, e.state, e.fingerprint
from input i join effects e on (e.tenant, e.kind, e.dedupe_key) = (i.tenant, i.kind, i.dedupe_key)
""")

_SHOW = """
select cast(e.id as text) as id, e.tenant, e.kind, e.dedupe_key, e.state, e.attempt, e.lease_until, e.not_before,
       e.first_sent_at, e.in_doubt, e.progress, e.policy, e.provider, e.provider_ref, e.outcome, e.amount, e.currency,
       cast(e.caused_by as text) as caused_by,
       cast(e.concerns as text) as concerns, e.ready_when, e.context, e.created_at, e.settled_at,
       o.lane, o.road, o.available_at, o.deliveries, o.parked_reason, o.last_error
from effects e left join outbox o on o.effect_id = e.id
"""
_KINDS_OF = text("""
select cast(id as text) as id, tenant, kind, amount, currency from effects where id = any(cast(:ids as uuid[]))
""")
_GET = text(f"{_SHOW} where e.id = cast(:id as uuid) and (cast(:tenant as text) is null or e.tenant = :tenant)")


# `state` stands in no index; what it implies does, and the outbox holds what is unsettled and nothing else.
_FOUND_BY = {
    **{state.value: ["o.effect_id is not null"] for state in State if state not in FINAL},
    State.PARKED.value: ["o.road = 'parked'"],
    State.FAILED.value: ["e.failed"],
}


def accept(connection: Connection, orders: Sequence[Order], *, actor: str) -> set[str]:
    """Write each order whose key is new, with its outbox row; return the ids written. Never commits."""
    return set(connection.execute(_ACCEPT, {"orders": _encode(orders), "actor": actor}).scalars())


def find(connection: Connection, orders: Sequence[Order]) -> dict[str, tuple[str, State, str]]:
    """For each order's id: (id, state, fingerprint) of the effect that carries its key."""
    rows = connection.execute(_FIND, {"orders": _encode(orders)})
    return {r.asked: (r.id, State(r.state), r.fingerprint) for r in rows}


def kinds_of(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Tenant, kind, amount and currency of those of `ids` that exist."""
    rows = connection.execute(_KINDS_OF, {"ids": list(ids)}).mappings()
    return {row["id"]: dict(row) for row in rows}


def get(connection: Connection, effect_id: str, *, tenant: str | None = None) -> dict[str, Any] | None:
    """One effect with its outbox row's columns, without the request; None when there is none (for this tenant)."""
    row = connection.execute(_GET, {"id": effect_id, "tenant": tenant}).mappings().one_or_none()
    return dict(row) if row else None


def page(connection: Connection, filters: Mapping[str, Any], *, after: str | None, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` effects, newest first, older than the effect `after`; `filters` are tenant, kind, state."""
    wanted = {name: value for name, value in filters.items() if value is not None}
    where = [f"e.{name} = :{name}" for name in wanted]
    if state := wanted.get("state"):
        where += _FOUND_BY.get(state, [])
    if after:
        where.append("e.id < cast(:after as uuid)")
    query = f"{_SHOW} {'where ' + ' and '.join(where) if where else ''} order by e.id desc limit :limit"
    rows = connection.execute(text(query), {**wanted, "after": after, "limit": limit}).mappings()
    return [dict(row) for row in rows]


def _encode(orders: Sequence[Order]) -> str:
    rows = [{name: getattr(order, name) for name in Order.__slots__} for order in orders]
    return json.dumps(rows, default=str, ensure_ascii=False)
