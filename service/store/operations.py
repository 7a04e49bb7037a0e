"""Operations: a frozen set of effects and what became of each. Whoever drives one holds its row's lock for the moment.

The guard stands in the SQL: an effect that is not as the plan saw it (state and attempt), is settled, or has a live
attempt, is left alone and says why. Effects, outbox, journal and the items of the plan change in one statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

_PLAN = text("""
with made as (
    insert into operations (id, verb, selector, tenant, total, skipped, money, more, planned_by, expires_at)
    values (cast(:id as uuid), :verb, cast(:selector as jsonb), :tenant, :total, cast(:skipped as jsonb),
            cast(:money as jsonb), :more, :actor, clock_timestamp() + make_interval(secs => :seconds))
    returning id, expires_at
), frozen as (
    insert into operation_items (operation_id, effect_id, position, seen_state, seen_attempt)
    select m.id, i.effect_id, i.position, i.seen_state, i.seen_attempt
    from made m, jsonb_to_recordset(cast(:items as jsonb)) as i (
        effect_id uuid, position bigint, seen_state text, seen_attempt bigint)
)
select expires_at from made
""")

_SHOW = """
select cast(o.id as text) as id, o.verb, o.state, o.selector, o.tenant, o.total, o.skipped as skipped_at_plan, o.money,
       o.more, o.planned_by, o.planned_at, o.expires_at, o.expires_at < clock_timestamp() as expired, o.reason,
       o.started_by, o.started_at, o.per_second, o.canary, o.failures_max, o.batch, o.paused_at, o.stop_reason,
       o.finished_at,
       extract(epoch from clock_timestamp() - coalesce(o.beat_at, o.started_at))::float8 as unattended_seconds,
       i.waiting, i.done, i.skipped, i.ended
from operations o cross join lateral (
    select count(*) filter (where result = 'waiting') as waiting, count(*) filter (where result = 'done') as done,
           coalesce((select jsonb_object_agg(why, n) from (select why, count(*) as n from operation_items
               where operation_id = o.id and result = 'skipped' group by why) s), '{}') as skipped,
           coalesce((select jsonb_object_agg(ended, n) from (select coalesce(ended, 'under way') as ended, count(*) as n
               from operation_items where operation_id = o.id and result = 'done' group by 1) s), '{}') as ended
    from operation_items where operation_id = o.id) i
"""
_ONE = text(f"{_SHOW} where o.id = cast(:id as uuid) and (cast(:tenant as text) is null or o.tenant = :tenant)")
_LIST = text(f"""
{_SHOW} where (cast(:tenant as text) is null or o.tenant = :tenant)
  and (cast(:state as text) is null or o.state = :state)
  and (cast(:after as uuid) is null or o.id < cast(:after as uuid))
order by o.id desc limit :limit
""")
_ITEMS = text("""
select i.position, cast(i.effect_id as text) as effect_id, i.seen_state, i.result, i.why, i.done_at, i.ended,
       e.state, e.kind, e.dedupe_key, e.amount, e.currency
from operation_items i join effects e on e.id = i.effect_id
where i.operation_id = cast(:id as uuid) and i.position > :after order by i.position limit :limit
""")

_START = text("""
update operations set state = 'running', reason = :reason, started_by = :actor, started_at = clock_timestamp(),
    per_second = :per_second, canary = :canary, failures_max = :failures_max, batch = :batch,
    paced_at = clock_timestamp()
where id = cast(:id as uuid) and state = 'planned' and expires_at >= clock_timestamp()
  and (cast(:tenant as text) is null or tenant = :tenant)
""")
# Legal moves of a person; what is finished stays so.
_TURN = text("""
update operations o set state = :state,
    paused_at = case when :state = 'paused' then clock_timestamp() end,
    finished_at = case when :state = 'cancelled' then clock_timestamp() end,
    stop_reason = case when :state = 'cancelled' then coalesce(cast(:reason as text), 'cancelled') end,
    paced_at = clock_timestamp(),
    paced_from = (select count(*) from operation_items where operation_id = o.id and result = 'done')
where o.id = cast(:id as uuid) and o.state = any(:from_states)
  and (cast(:tenant as text) is null or o.tenant = :tenant)
""")

# --- driving ---------------------------------------------------------------------------------------------------------

# Of several relays one drives an operation at a time; the others go past it.
_HOLD = text("""
select cast(id as text) as id, verb, reason, started_by, per_second, canary, failures_max, batch,
       extract(epoch from clock_timestamp() - paced_at)::float8 as paced_seconds, paced_from
from operations where state = 'running' and cast(id as text) <> all(:seen)
order by started_at limit 1 for update skip locked
""")
_ENDED = text("""
update operation_items i set ended = e.state
from effects e
where i.operation_id = cast(:id as uuid) and i.result = 'done' and i.ended is null and e.id = i.effect_id
  and (e.state in ('succeeded', 'failed', 'parked') or (e.state = 'unknown' and e.attempt > i.seen_attempt)
       or (i.done_at < clock_timestamp() - make_interval(secs => :patience) and e.state <> 'executing'))
""")
_STANDING = text("""
select count(*) filter (where result = 'waiting') as waiting, count(*) filter (where result = 'done') as done,
       count(*) filter (where result = 'done' and ended is null) as under_way,
       count(*) filter (where ended in ('failed', 'parked', 'unknown')) as failures,
       -- The first ones that were touched: one that was skipped proves nothing.
       greatest(0, least(:canary - count(*) filter (where result = 'done'), count(*) filter (where result = 'waiting')))
           as canary_waiting,
       count(*) filter (where result = 'done' and turn <= :canary and ended is null) as canary_under_way,
       count(*) filter (where result = 'done' and turn <= :canary and ended <> 'succeeded') as canary_failures
from (select *, row_number() over (partition by result order by position) as turn from operation_items
      where operation_id = cast(:id as uuid)) i
""")
_NEXT = text("""
select cast(effect_id as text) as effect_id from operation_items
where operation_id = cast(:id as uuid) and result = 'waiting'
order by position limit :limit
""")
_BEAT = text("""
update operations set beat_at = clock_timestamp(),
    paced_at = case when :anew then clock_timestamp() else paced_at end,
    paced_from = case when :anew then :done else paced_from end
where id = cast(:id as uuid)
""")
_FINISH = text("""
update operations set state = :state, stop_reason = :reason, finished_at = clock_timestamp(),
    beat_at = clock_timestamp()
where id = cast(:id as uuid)
""")

_CHOSEN = """
with asked as (
    select * from operation_items where operation_id = cast(:operation as uuid) and result = 'waiting'
      and effect_id = any(cast(:ids as uuid[]))
), found as (
    select e.id, e.state, e.attempt, o.parked_reason, i.seen_state, i.seen_attempt
    from asked i join effects e on e.id = i.effect_id join outbox o on o.effect_id = e.id
    where e.state = i.seen_state and e.attempt = i.seen_attempt {condition}
    order by o.effect_id for update of o for no key update of e
)"""
_TELL = """
, facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence){lost}
    select id, '{fact}', attempt, :actor, jsonb_strip_nulls(jsonb_build_object(
        'reason', cast(:reason as text), 'was', was, 'operation', cast(:operation as text){more}))
    from changed
), results as (
    update operation_items i set result = case when c.id is null then 'skipped' else 'done' end,
        why = case when c.id is not null then null
                   when e.settled_at is not null then 'settled: ' || e.state
                   when e.state = 'executing' and e.lease_until >= now() then 'an attempt is at work'
                   else 'changed since the plan' end,
        done_at = clock_timestamp(){ended}
    from asked a join effects e on e.id = a.effect_id left join changed c on c.id = a.effect_id
    where i.operation_id = a.operation_id and i.effect_id = a.effect_id
)
select cast(id as text) from changed
"""

# Due now, with a new budget, whatever it was parked for. What is in doubt stays in doubt, and the keys are the same.
# An attempt that has lost its lease may have sent (W7, W8): it stands as `unknown`, as any other lost lease does.
_REPLAY = text(
    _CHOSEN.format(condition="")
    + """, changed as (
    update effects e set
        state = case e.state when 'parked' then 'pending' when 'executing' then 'unknown' else e.state end,
        in_doubt = e.in_doubt or e.state = 'executing', lease_until = null, not_before = null, budget_from = e.attempt,
        -- One that waits for another effect was never sent: its patience begins when it is.
        patience_from = case when e.first_sent_at is not null then now() end
    from found f where e.id = f.id returning e.id, e.attempt, f.state as was
), due as (
    update outbox o set road = 'later', available_at = now(), parked_at = null, parked_reason = null
    from changed c where o.effect_id = c.id
)"""
    + _TELL.format(
        fact="replayed",
        more="",
        ended="",
        lost="""
    select id, 'leased_out', attempt, :actor, cast('{}' as jsonb) from changed where was = 'executing' union all""",
    )
)
# Held by a person: nothing claims it until somebody lifts that. Not what the provider is working on (`awaiting`).
_PARK = text(
    _CHOSEN.format(condition="and e.state in ('pending', 'unknown', 'executing')")
    + """, changed as (
    update effects e set state = 'parked', lease_until = null, in_doubt = e.in_doubt or f.state = 'executing'
    from found f where e.id = f.id returning e.id, e.attempt, f.state as was
), held as (
    update outbox o set road = 'parked', parked_at = now(), parked_reason = 'by_person'
    from changed c where o.effect_id = c.id
)"""
    + _TELL.format(
        fact="parked",
        more=", 'parked_reason', 'by_person'",
        ended=", ended = case when c.id is not null then 'parked' end",
        lost="",
    )
)
# Lifts a person's park and nothing else: the budget, the age and the time it is due are what they were.
_UNPARK = text(
    _CHOSEN.format(condition="and e.state = 'parked' and o.parked_reason = 'by_person'")
    + """, changed as (
    update effects e set state = 'pending' from found f where e.id = f.id returning e.id, e.attempt, f.state as was
), due as (
    update outbox o set road = 'later', available_at = greatest(now(), e.not_before), parked_at = null,
        parked_reason = null
    from changed c join effects e on e.id = c.id where o.effect_id = c.id
)"""
    + _TELL.format(fact="unparked", more="", ended=", ended = case when c.id is not null then 'unparked' end", lost="")
)


def plan(connection: Connection, operation: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Any:
    """Freeze a set; returns when the plan expires."""
    encoded = {name: json.dumps(operation[name], default=str) for name in ("selector", "skipped", "money")}
    return connection.execute(_PLAN, {**operation, **encoded, "items": json.dumps(items)}).scalar_one()


def show(connection: Connection, id_: str, *, tenant: str | None) -> dict[str, Any] | None:
    """One operation with the counts of its items."""
    row = connection.execute(_ONE, {"id": id_, "tenant": tenant}).mappings().one_or_none()
    return dict(row) if row else None


def listed(
    connection: Connection, *, tenant: str | None, state: str | None, after: str | None, limit: int
) -> list[dict[str, Any]]:
    """Newest first, older than the operation `after`."""
    wanted = {"tenant": tenant, "state": state, "after": after, "limit": limit}
    return [dict(row) for row in connection.execute(_LIST, wanted).mappings()]


def items(connection: Connection, id_: str, *, after: int, limit: int) -> list[dict[str, Any]]:
    """The frozen set in its order, beyond the position `after`."""
    return [dict(row) for row in connection.execute(_ITEMS, {"id": id_, "after": after, "limit": limit}).mappings()]


def start(connection: Connection, id_: str, **how: Any) -> bool:
    """Let the relay begin. False: it is not planned any more, its plan is too old, or another tenant's."""
    return connection.execute(_START, {"id": id_, **how}).rowcount == 1


def turn(
    connection: Connection, id_: str, state: str, from_states: Sequence[str], *, reason: str | None, tenant: str | None
) -> bool:
    """Pause, go on or cancel. False: it is in none of `from_states`, or another tenant's."""
    how = {"id": id_, "state": state, "from_states": list(from_states), "reason": reason, "tenant": tenant}
    return connection.execute(_TURN, how).rowcount == 1


def hold(connection: Connection, seen: Sequence[str]) -> dict[str, Any] | None:
    """Lock one running operation that nobody else drives and that is none of `seen`."""
    row = connection.execute(_HOLD, {"seen": list(seen)}).mappings().one_or_none()
    return dict(row) if row else None


def standing(connection: Connection, id_: str, *, canary: int, patience_seconds: float) -> dict[str, int]:
    """Note which replayed effects have come to rest, then count. After `patience_seconds` an effect stands as it is."""
    connection.execute(_ENDED, {"id": id_, "patience": patience_seconds})
    return {
        name: int(n)
        for name, n in connection.execute(_STANDING, {"id": id_, "canary": canary}).mappings().one().items()
    }


def do(connection: Connection, operation: Mapping[str, Any], *, limit: int) -> tuple[int, int]:
    """Do the verb to the next `limit` effects in the plan's order; (tried, done)."""
    ids = list(connection.execute(_NEXT, {"id": operation["id"], "limit": limit}).scalars())
    if not ids:
        return 0, 0
    how = {"operation": operation["id"], "ids": ids, "actor": operation["started_by"], "reason": operation["reason"]}
    verb = {"replay": _REPLAY, "park": _PARK, "unpark": _UNPARK}[operation["verb"]]
    return len(ids), len(list(connection.execute(verb, how).scalars()))


def beat(connection: Connection, id_: str, *, done: int, anew: bool) -> None:
    """A relay has looked after it; `anew`: the pace is counted from here."""
    connection.execute(_BEAT, {"id": id_, "done": done, "anew": anew})


def finish(connection: Connection, id_: str, state: str, reason: str | None) -> None:
    """Done, or stopped by its canary or its failures."""
    connection.execute(_FINISH, {"id": id_, "state": state, "reason": reason})
