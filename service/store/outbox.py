"""The outbox: rows that are due are taken in batches, and come due again until their effect is settled.

Any number of relays take side by side (`for update skip locked`). Taking commits before anything is published, so a
relay that dies in between (W3) only delays: the row comes due again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

# Overdue rows first (somebody has waited longest), then retries, then fresh ones; each by its own index.
_TAKE = text("""
with overdue as (
    select effect_id from outbox where road = 'published' and available_at <= now()
    order by available_at limit :batch for update skip locked
), later as (
    select effect_id from outbox where road = 'later' and available_at <= now()
    order by available_at limit :batch for update skip locked
), fresh as (
    select effect_id from outbox where road = 'fresh'
    order by priority desc, effect_id limit :batch for update skip locked
), due as (
    select effect_id, 1 as turn from overdue union all select effect_id, 2 from later
    union all select effect_id, 3 from fresh order by turn limit :batch
), taken as (
    update outbox o set road = 'published', deliveries = o.deliveries + 1,
        available_at = now() + make_interval(secs => :redelivery)
    from due d where o.effect_id = d.effect_id
    returning o.effect_id, o.kind, o.lane, o.priority, o.deliveries, d.turn
)
select cast(effect_id as text) as effect_id, kind, lane, deliveries, turn,
       -- Without a disk flush: if Postgres dies and forgets this commit, the rows are due at once, which is harmless.
       (select set_config('synchronous_commit', 'off', true)) as unsynced
from taken order by priority desc, effect_id
""")

# An attempt whose lease is over and that has settled nothing: from here on it stands visibly as `unknown`.
_LEASED_OUT = text("""
with lost as (
    update effects set state = 'unknown', in_doubt = true, lease_until = null
    where id = any(cast(:ids as uuid[])) and state = 'executing' and lease_until < now()
    returning id, attempt
), facts as (
    insert into journal (effect_id, fact, attempt, actor) select id, 'leased_out', attempt, :actor from lost
)
select cast(id as text) from lost
""")

_PUT_BACK = text("""
update outbox set road = 'later', available_at = now() + make_interval(secs => :after), last_error = :error
where effect_id = any(cast(:ids as uuid[])) and road = 'published'
""")

SECONDS_UNTIL_DUE = """
select extract(epoch from min(at) - now())::float8 from (
    (select available_at as at from outbox where road = 'later' order by available_at limit 1)
    union all (select available_at from outbox where road = 'published' order by available_at limit 1)
    union all (select now() from outbox where road = 'fresh' limit 1)) soonest
"""
_NEXT_DUE = text(SECONDS_UNTIL_DUE)

_STATS = text("""
select coalesce(sum((road = 'fresh')::int), 0) as fresh, coalesce(sum((road = 'later')::int), 0) as later,
       coalesce(sum((road = 'published')::int), 0) as published, coalesce(sum((road = 'parked')::int), 0) as parked,
       coalesce(sum((state = 'unknown')::int), 0) as unknown, coalesce(sum((state = 'awaiting')::int), 0) as awaiting,
       coalesce(sum((state = 'executing')::int), 0) as executing,
       -- Since it came due: what was scheduled, or waited for another effect, was not late before that.
       -- What a person or an open circuit holds back is nobody's delay.
       extract(epoch from now() - min(available_at) filter (where deliveries = 0 and available_at <= now()
           and road in ('fresh', 'later') and o.kind <> all(select unnest(kinds) from circuits
               where opened_at is not null)))::float8 as oldest_unpublished_seconds,
       extract(epoch from now() - min(first_sent_at) filter (where state = 'unknown'))::float8
           as oldest_unknown_seconds,
       extract(epoch from now() - min(parked_at))::float8 as oldest_parked_seconds,
       -- Delivered again and again and never claimed: nobody serves the lane.
       coalesce(sum((deliveries >= 3 and attempt = 0 and road <> 'parked')::int), 0) as unclaimed,
       -- Tried, and still neither settled nor waiting for a person or the provider.
       extract(epoch from now() - min(first_sent_at) filter (where road <> 'parked' and state <> 'awaiting'))::float8
           as oldest_unsettled_seconds
from (select * from outbox order by effect_id limit :cap) o join effects e on e.id = o.effect_id
where cast(:tenant as text) is null or e.tenant = :tenant
""")

STATS_CAP = 200_000  # a count over more rows than this would cost what an incident cannot spare; the oldest are in


@dataclass(frozen=True, slots=True)
class Due:
    """One row that was taken for publishing. `again`: it was published before and nothing came of it in time."""

    effect_id: str
    kind: str
    lane: str
    deliveries: int
    again: bool


def take(connection: Connection, batch: int, redelivery: float) -> list[Due]:
    """Take up to `batch` due rows and push each `redelivery` seconds ahead. Commit before publishing (W3)."""
    rows = connection.execute(_TAKE, {"batch": batch, "redelivery": redelivery})
    return [Due(r.effect_id, r.kind, r.lane, r.deliveries, r.turn == 1) for r in rows]


def lease_out(connection: Connection, ids: Sequence[str], *, actor: str) -> list[str]:
    """Mark those of `ids` whose attempt has lost its lease as `unknown`; return them."""
    return list(connection.execute(_LEASED_OUT, {"ids": list(ids), "actor": actor}).scalars())


def put_back(connection: Connection, ids: Sequence[str], *, after: float, error: str) -> int:
    """Let rows whose publishing failed come due again in `after` seconds. Some may have gone out: that is harmless."""
    parameters = {"ids": list(ids), "after": after, "error": error[:500]}
    return connection.execute(_PUT_BACK, parameters).rowcount


def seconds_until_due(connection: Connection) -> float | None:
    """Seconds until the next row comes due (0 or less: now); None when the outbox is empty."""
    value = connection.execute(_NEXT_DUE).scalar_one()
    return None if value is None else float(value)


def stats(connection: Connection, *, tenant: str | None = None) -> dict[str, Any]:
    """Counts by road and state, and ages in seconds, over the oldest `STATS_CAP` rows (of one tenant)."""
    return dict(connection.execute(_STATS, {"cap": STATS_CAP, "tenant": tenant}).mappings().one())


_ROWS = """
select cast(o.effect_id as text) as effect_id, o.kind, o.lane, o.priority, o.road, o.available_at, o.deliveries,
       o.parked_at, o.parked_reason, o.last_error, o.created_at, e.state, e.attempt, e.dedupe_key, e.tenant, e.in_doubt,
       e.first_sent_at, e.amount, e.currency
from outbox o join effects e on e.id = o.effect_id
"""


def rows(connection: Connection, filters: Mapping[str, Any], *, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` outbox rows with their effects, oldest first; `filters`: effect_id, state, road, kind, tenant."""
    columns = {"effect_id": "o.effect_id", "road": "o.road", "kind": "o.kind", "state": "e.state", "tenant": "e.tenant"}
    wanted = {name: value for name, value in filters.items() if value is not None}
    where = " and ".join(
        f"{columns[name]} = cast(:{name} as uuid)" if name == "effect_id" else f"{columns[name]} = :{name}"
        for name in wanted
    )
    query = f"{_ROWS} {'where ' + where if where else ''} order by o.effect_id limit :limit"
    return [dict(row) for row in connection.execute(text(query), {**wanted, "limit": limit}).mappings()]
