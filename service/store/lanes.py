"""Lanes that somebody has paused: what comes due there is held out of the relays' sight until the lane is resumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

HOLD_BATCH = 500

_PAUSE = text("""
insert into lanes (name, paused_at, paused_by, pause_reason) values (:name, clock_timestamp(), :actor, :reason)
on conflict (name) do update set paused_at = clock_timestamp(), paused_by = :actor, pause_reason = :reason
where lanes.paused_at is null
""")
_RESUME = text("""
update lanes set paused_at = null, paused_by = null, pause_reason = null where name = :name and paused_at is not null
""")
# Only a lane that was paused once has rows that are held, so looking costs nothing where nobody ever did.
_RELEASE = text("""
with back as (
    select h.effect_id, h.deliveries, h.available_at from lanes l cross join lateral (
        select effect_id, deliveries, available_at from outbox where road = 'held' and lane = l.name
        order by available_at limit :batch for update skip locked) h
    where l.paused_at is null
)
update outbox o set road = case when b.deliveries = 0 and b.available_at <= now() then 'fresh' else 'later' end
from back b where o.effect_id = b.effect_id
""")
# Taken for publishing, and not published: the delivery does not count, and it is due as long as it was.
_PUT_ASIDE = text("""
update outbox set road = 'held', deliveries = deliveries - 1, available_at = now()
where effect_id = any(cast(:ids as uuid[])) and road = 'published'
""")
_LIST = text("""
with counted as (
    select lane, count(*) filter (where road in ('fresh', 'later')) as waiting,
           count(*) filter (where road = 'held') as held, count(*) filter (where road = 'published') as in_flight,
           count(*) filter (where road = 'parked') as parked,
           extract(epoch from now() - min(available_at)
               filter (where road <> 'parked' and available_at <= now()))::float8 as oldest_seconds
    from outbox group by lane
)
select coalesce(l.name, c.lane) as name, l.paused_at, l.paused_by, l.pause_reason, coalesce(c.waiting, 0) as waiting,
       coalesce(c.held, 0) as held, coalesce(c.in_flight, 0) as in_flight, coalesce(c.parked, 0) as parked,
       c.oldest_seconds
from lanes l full join counted c on c.lane = l.name order by 1
""")


def pause(connection: Connection, name: str, *, actor: str, reason: str) -> bool:
    """False: it was paused already."""
    return connection.execute(_PAUSE, {"name": name, "actor": actor, "reason": reason}).rowcount == 1


def resume(connection: Connection, name: str) -> bool:
    """False: it was not paused."""
    return connection.execute(_RESUME, {"name": name}).rowcount == 1


def put_aside(connection: Connection, ids: Sequence[str]) -> int:
    """Hold what was taken of a paused lane; how many."""
    return connection.execute(_PUT_ASIDE, {"ids": list(ids)}).rowcount


def release(connection: Connection) -> int:
    """Put back a batch of what is held in lanes that are paused no more; how many."""
    return connection.execute(_RELEASE, {"batch": HOLD_BATCH}).rowcount


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Each lane that has rows or was ever paused."""
    return [dict(row) for row in connection.execute(_LIST).mappings()]
