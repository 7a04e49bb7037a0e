"""What a relay takes while a provider is limited or away, and how a worker puts off what it may not claim.

`outbox.take` knows nothing of providers. This one lets each account have a second's worth of calls published and not
begun, and each provider whose circuit is open one probe, once that is due. All else stays where it is: durable, by
priority, and untouched, however long the provider is away.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from service.store.outbox import Due

# What is published and not begun is beyond the reach of priorities, so it is little; less than this, and workers run
# dry between two rounds of the relay.
AHEAD_SECONDS = 1.0
# A message that nobody has begun for so long is lost, or its workers are away: it holds nobody up any more.
LOST_SECONDS = 5.0
SILENT_MAX = 500

_ROADS = "road in ('fresh', 'later', 'published')"
_SHUT = """
    select k.kind, max(c.probe_at) as probe_at
    from circuits c cross join lateral unnest(c.kinds) as k (kind) where c.opened_at is not null group by k.kind
"""

_LIMITED = text("select exists (select 1 from buckets) or exists (select 1 from circuits where opened_at is not null)")

# A step a kind and priority through `outbox_by_kind`: what it costs does not grow with what waits.
_TAKE = text(f"""
with recursive kinds (kind) as (
    (select kind from outbox where {_ROADS} order by kind limit 1)
    union all
    select (select o.kind from outbox o where {_ROADS} and o.kind > k.kind order by o.kind limit 1)
    from kinds k where k.kind is not null
), ahead as (
    select o.kind, count(*) as effects from outbox o join effects e on e.id = o.effect_id
    where o.road = 'published' and o.available_at > now() + make_interval(secs => greatest(:redelivery - :lost, 0))
      and not (e.state = 'executing' and e.lease_until > now())
    group by o.kind
), shut as ({_SHUT}), costs as (
    select distinct on (c.key) c.key as kind, b.account, greatest(cast(c.value as float8), 1) as cost, b.per_second
    from buckets b cross join lateral jsonb_each_text(b.costs) as c order by c.key, b.account
), room as (
    select k.kind, case when s.kind is null then coalesce(c.account, '') else 'probe of ' || k.kind end as share,
        case when s.kind is null then coalesce(c.cost, 1) else 1 end as cost,
        case when s.probe_at > now() then 0
             when s.kind is not null then 1 - coalesce(a.effects, 0)
             when c.account is null then cast(:batch as float8)
             -- Of the dearest kind always one that begins and one that comes next.
             else greatest(c.per_second * :ahead, 2 * max(c.cost) over (partition by c.account))
                  - sum(coalesce(a.effects, 0) * c.cost) over (partition by c.account) end as calls
    from kinds k left join costs c on c.kind = k.kind left join shut s on s.kind = k.kind
         left join ahead a on a.kind = k.kind
    where k.kind is not null
), found as materialized (
    select r.share, r.cost, r.calls, o.* from room r cross join generate_series(0, 9) as p (priority)
    cross join lateral (
        select effect_id, road, priority, available_at from outbox
        where {_ROADS} and kind = r.kind and priority = p.priority and available_at <= now()
        order by available_at limit cast(least(:batch, floor(greatest(r.calls, 0) / r.cost)) as bigint)
        for update skip locked
    ) o
), ranked as (
    select *, sum(cost) over (partition by share order by priority desc, available_at, effect_id) as spent from found
), due as (
    select effect_id, road from ranked where spent <= calls order by priority desc, available_at, effect_id limit :batch
), taken as (
    update outbox o set road = 'published', deliveries = o.deliveries + 1,
        available_at = now() + make_interval(secs => :redelivery)
    -- An array, not a join: one plan serves every batch, and a join's would be made for the whole backlog.
    where o.effect_id = any(array(select effect_id from due))
    returning o.effect_id, o.kind, o.lane, o.priority, o.deliveries
)
select cast(t.effect_id as text) as effect_id, t.kind, t.lane, t.deliveries, d.road = 'published' as again,
       (select set_config('synchronous_commit', 'off', true)) as unsynced -- as in `outbox.take`
from taken t join due d on d.effect_id = t.effect_id order by t.priority desc, t.effect_id
""")

# Not claimed, so not tried: the delivery does not count. What another attempt holds meanwhile is its own business.
_PUT_OFF = text("""
with idle as (
    select o.effect_id from outbox o join effects e on e.id = o.effect_id
    where o.effect_id = any(cast(:ids as uuid[])) and o.road = 'published'
      and not (e.state = 'executing' and e.lease_until > now())
    order by o.effect_id for update of o skip locked
)
update outbox o set road = 'later', deliveries = greatest(o.deliveries - 1, 0), last_error = :why,
    available_at = now() + make_interval(secs => :seconds * (1 + random()))
from idle i where o.effect_id = i.effect_id
returning cast(o.effect_id as text), (select set_config('synchronous_commit', 'off', true)) as unsynced
""")

_SILENT = text(f"""
with overdue as (
    select effect_id from outbox
    where road = 'published' and available_at <= now() and kind in (select kind from ({_SHUT}) shut)
    order by available_at limit :most for update skip locked
)
update outbox o set road = 'later' from overdue d where o.effect_id = d.effect_id returning cast(o.effect_id as text)
""")


def limited(connection: Connection) -> bool:
    """Whether any provider has a pace or an open circuit; if not, `outbox.take` takes."""
    return bool(connection.execute(_LIMITED).scalar_one())


def take(connection: Connection, batch: int, redelivery: float) -> list[Due]:
    """As `outbox.take`, as far as each provider's limits let it."""
    given = {"batch": batch, "redelivery": redelivery, "ahead": AHEAD_SECONDS, "lost": LOST_SECONDS}
    rows = connection.execute(_TAKE, given)
    return [Due(r.effect_id, r.kind, r.lane, r.deliveries, r.again) for r in rows]


def put_off(connection: Connection, ids: Sequence[str], *, seconds: float, why: str) -> list[str]:
    """Let what was delivered and may not be claimed come due again in `seconds`, or a little later; return those."""
    return list(connection.execute(_PUT_OFF, {"ids": list(ids), "seconds": seconds, "why": why}).scalars())


def silent(connection: Connection) -> list[str]:
    """Ids that were published, came to nothing, and are not published again while their provider is away."""
    return list(connection.execute(_SILENT, {"most": SILENT_MAX}).scalars())
