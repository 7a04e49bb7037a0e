"""Why what is unsettled is not settled yet: each row of the outbox under exactly one cause, with its age."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

CAP = 200_000  # as of `outbox.stats`: the oldest are in

# In this order the first that fits is the cause; what stands last is well.
_CAUSES = text("""
select cause, count(*) as count, extract(epoch from now() - min(since))::float8 as oldest_seconds,
       (array_agg(cast(effect_id as text) order by since))[1] as oldest
from (
    select o.effect_id,
        case when o.road = 'parked' then 'parked'
             when o.road = 'held' then 'held in a paused lane'
             when e.state = 'unknown' then 'unknown'
             when o.kind in (select unnest(kinds) from circuits where opened_at is not null) then 'its provider is away'
             when e.state = 'awaiting' then 'the provider is at work'
             when e.state = 'executing' then 'started and not finished'
             when o.deliveries = 0 and o.available_at > now() and e.attempt = 0 and e.concerns is null then 'scheduled'
             when e.attempt = 0 and o.last_error like 'waits for the effect%' then 'waits for its charge'
             when o.deliveries = 0 and e.attempt = 0 then 'never published'
             when e.attempt = 0 then 'published and not picked up'
             else 'tried, comes again' end as cause,
        case when o.road = 'parked' then o.parked_at
             when e.state in ('unknown', 'awaiting', 'executing') then e.first_sent_at
             when o.deliveries = 0 then least(o.available_at, now()) else o.created_at end as since
    from (select * from outbox order by effect_id limit :cap) o join effects e on e.id = o.effect_id
) found group by cause order by count desc
""")


def of(connection: Connection) -> list[dict[str, Any]]:
    """`cause`, `count`, `oldest_seconds` and the id of the `oldest`, most first."""
    return [dict(row) for row in connection.execute(_CAUSES, {"cap": CAP}).mappings()]
