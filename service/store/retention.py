"""What is kept, and for how long: requests of settled effects go, their keys, fingerprints and facts stay for ever.

Personal data stands in one column, `effects.request` (ADR 20). A purge walks through the ledger in the order of
settlement, a small window at a time, each batch a commit of its own: stopped anywhere it goes on where it was. What is
old enough and may still be needed is passed by, remembered in `kept_requests`, and asked for again each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

# Rows of one block are purged in so many turns, a third each time: what an update leaves dead in a block (fillfactor
# 70) is room for the next turn, so that nearly all updates stay heap-only, no index grows, and rows stay in their
# blocks, where the summary by settled_at (effects_settled) finds them.
TURNS = 3
_TURN = f"get_byte(uuid_send(e.id), 15) % {TURNS} = :turn"

# A provider may still ask, tell or be asked: the request says what the answer must be.
_WHY = """
    select case
        when exists (select from effects d where d.concerns = e.id and d.settled_at is null)
          or exists (select from effects d where d.caused_by = e.id and d.settled_at is null)
          or exists (select from effects c where c.id in (e.concerns, e.caused_by) and c.settled_at is null)
            then 'linked'
        when exists (select from breaks b where b.effect_id = e.id and b.closed_at is null) then 'break'
        when exists (select from operation_items i join operations o on o.id = i.operation_id
                     where i.effect_id = e.id and (o.state in ('running', 'paused')
                         or (o.state = 'planned' and o.expires_at > now()))) then 'operation'
        when exists (select from inbox i where i.processed_at is null
                     and (i.effect_id = e.id or i.object_id = e.provider_ref or i.payment_intent = e.provider_ref))
            then 'event'
        when e.first_sent_at > now() - make_interval(secs => :window) then 'window'
    end as why
"""

_PURGE = text(f"""
with due as materialized (
    select e.id, n.why from effects e left join lateral ({_WHY}) n on true
    where e.settled_at >= :since and e.settled_at < :until and e.request is not null and {_TURN}
      and not exists (select from kept_requests k where k.effect_id = e.id)
    limit :batch for no key update of e
), kept as (
    insert into kept_requests (effect_id, why) select id, why from due where why is not null
    on conflict (effect_id) do nothing
), purged as (
    update effects e set request = null, context = '{{}}' from due d where e.id = d.id and d.why is null returning e.id
)
select (select count(*) from due) as seen, (select count(*) from purged) as purged
""")

_AGAIN = text(f"""
with due as materialized (
    select e.id, n.why from kept_requests k join effects e on e.id = k.effect_id left join lateral ({_WHY}) n on true
    where k.effect_id > cast(:after as uuid) order by k.effect_id limit :batch for no key update of e
), told as (
    update kept_requests k set why = d.why from due d where k.effect_id = d.id and d.why is not null and d.why <> k.why
), free as (
    delete from kept_requests k using due d where k.effect_id = d.id and d.why is null returning k.effect_id
), purged as (
    update effects e set request = null, context = '{{}}' from free f
    where e.id = f.effect_id and e.request is not null returning e.id
)
select (select cast(id as text) from due order by id desc limit 1) as last, (select count(*) from purged) as purged
""")

_SIZE = text("""
select count(*) from (select 1 from effects
    where settled_at >= :since and settled_at < :until and request is not null limit :cap) few
""")
# Nothing of ours is older. The first id tells nothing: it is made by a caller's clock, which may be decades behind.
_REACHED = text("""
select coalesce((select until from purges where subject = 'requests'), timestamptz '2020-01-01 00:00:00Z')
""")
_ADVANCE = text("""
insert into purges as p (subject, until, done) values ('requests', :until, :done)
on conflict (subject) do update set until = greatest(p.until, excluded.until), done = p.done + excluded.done,
    at = clock_timestamp()
""")
PURGED = """
    jsonb_strip_nulls(jsonb_build_object('amount', e.amount, 'currency', e.currency, 'capture_method',
        case when exists (select from effects d where d.concerns = e.id and d.kind in ('capture', 'cancel'))
             then 'manual' end))
"""
"""What is known of a request that has gone: enough to ask the provider about the effect `e`, and to compare."""

_NOW = text("select now()")
_KEPT = text("select why, count(*) as requests from kept_requests group by why order by why")

# Read with the patience of a person who asks for a plan; the house's plans go by index only.
_PATIENT = text("select set_config('statement_timeout', '10min', true), set_config('enable_seqscan', 'on', true)")
_COUNT = text("""
select count(*) as requests, coalesce(sum(pg_column_size(request)), 0)::bigint as bytes from effects
where settled_at >= :since and settled_at < :until and request is not null
  and id not in (select effect_id from kept_requests)
""")

_INBOX = """
    select provider, event_id from inbox
    where received_at < :before and processed_at < :before order by received_at limit :batch
"""
_EVENTS = text(f"delete from inbox i using ({_INBOX}) d where (i.provider, i.event_id) = (d.provider, d.event_id)")
_EVENTS_COUNT = text("select count(*) from inbox where received_at < :before and processed_at < :before")

_PLANS = """
    select id from operations where state = 'planned' and expires_at < now() - interval '1 day' and planned_at < now()
"""
_PLAN_ITEMS = text(f"""
delete from operation_items where (operation_id, effect_id) in (
    select i.operation_id, i.effect_id from operation_items i where i.operation_id in ({_PLANS}) limit :batch)
""")
_EMPTY_PLANS = text(f"""
delete from operations where id in ({_PLANS})
  and not exists (select from operation_items i where i.operation_id = operations.id)
""")
_FINISHED = "select id from operations where finished_at < :before and planned_at < :before"
# Counted before they go: how a whole operation ended is an operator's fact and stays.
_SUMMARY = text(f"""
insert into actions (actor, door, verb, subject, detail)
select :actor, :door, 'items_purged', cast(o.id as text), jsonb_build_object(
    'done', count(*) filter (where i.result = 'done'), 'skipped', count(*) filter (where i.result = 'skipped'),
    'succeeded', count(*) filter (where i.ended = 'succeeded'), 'failed', count(*) filter (where i.ended = 'failed'))
from operations o join operation_items i on i.operation_id = o.id
where o.id in ({_FINISHED})
  and not exists (select from actions a where a.subject = cast(o.id as text) and a.verb = 'items_purged')
group by o.id
""")
_FINISHED_ITEMS = text(f"""
delete from operation_items where (operation_id, effect_id) in (
    select i.operation_id, i.effect_id from operation_items i where i.operation_id in ({_FINISHED}) limit :batch)
""")
_ITEMS_COUNT = text(f"""
select (select count(*) from operations where id in ({_PLANS})) as plans,
       (select count(*) from operation_items where operation_id in ({_FINISHED})) as items
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """`seen`: rows that were looked at, less than asked for at the end of a window; `purged`: of those."""

    seen: int
    purged: int


def now(connection: Connection) -> datetime:
    """The database's clock."""
    found: datetime = connection.execute(_NOW).scalar_one()
    return found


def reached(connection: Connection) -> datetime:
    """Until when all is purged: where the last run ended, or the beginning of time."""
    found: datetime = connection.execute(_REACHED).scalar_one()
    return found


def size(connection: Connection, since: datetime, until: datetime, *, cap: int) -> int:
    """How many requests a window holds, `cap` at most."""
    return int(connection.execute(_SIZE, {"since": since, "until": until, "cap": cap}).scalar_one())


def purge(
    connection: Connection, since: datetime, until: datetime, *, turn: int, batch: int, window_seconds: float
) -> Batch:
    """One batch of a window and turn: purge what may go, remember what may not."""
    given = {"since": since, "until": until, "turn": turn, "batch": batch, "window": window_seconds}
    row = connection.execute(_PURGE, given).one()
    return Batch(int(row.seen), int(row.purged))


def advance(connection: Connection, until: datetime, *, done: int) -> None:
    """All that was settled before `until` is purged or remembered."""
    connection.execute(_ADVANCE, {"until": until, "done": done})


def again(connection: Connection, after: str, *, batch: int, window_seconds: float) -> tuple[str | None, int]:
    """Ask for the next batch of what was passed by: the last id of it (None at the end), and how many are purged."""
    row = connection.execute(_AGAIN, {"after": after, "batch": batch, "window": window_seconds}).one()
    return row.last, int(row.purged)


def kept(connection: Connection) -> dict[str, int]:
    """What was passed by, by reason."""
    return {row.why: int(row.requests) for row in connection.execute(_KEPT)}


def count(connection: Connection, since: datetime, until: datetime) -> tuple[int, int]:
    """Requests of a window and their bytes; reads the ledger's part, so only for people."""
    connection.execute(_PATIENT)
    row = connection.execute(_COUNT, {"since": since, "until": until}).one()
    return int(row.requests), int(row.bytes)


def old_events(connection: Connection, before: datetime) -> int:
    """Events that were received and processed before then."""
    return int(connection.execute(_EVENTS_COUNT, {"before": before}).scalar_one())


def drop_events(connection: Connection, before: datetime, *, batch: int) -> int:
    """Forget a batch of them."""
    return connection.execute(_EVENTS, {"before": before, "batch": batch}).rowcount


def old_operations(connection: Connection, before: datetime) -> dict[str, Any]:
    """Plans that nobody started, and items of operations that ended before then."""
    return dict(connection.execute(_ITEMS_COUNT, {"before": before}).mappings().one())


def drop_operations(connection: Connection, before: datetime, *, actor: str, door: str, batch: int) -> int:
    """Forget a batch of them; what an operation ended with stays in the operators' log."""
    connection.execute(_SUMMARY, {"before": before, "actor": actor, "door": door})
    gone = connection.execute(_PLAN_ITEMS, {"batch": batch}).rowcount
    connection.execute(_EMPTY_PLANS)
    return gone + connection.execute(_FINISHED_ITEMS, {"before": before, "batch": batch}).rowcount


# --- one person's data ----------------------------------------------------------------------------------------------

_TO = text("""
with page as materialized (
    select id, request from effects
    where id > cast(:after as uuid) and (cast(:tenant as text) is null or tenant = :tenant)
    order by id limit :batch
)
select (select cast(id as text) from page order by id desc limit 1) as last,
       array(select cast(id as text) from page
             where lower(request ->> 'to') = :to or lower(request ->> 'receipt_email') = :to) as found
""")

# A charge's receipt holds what the charge has said of its payer.
_STANDING = text("""
with named as (
    select id from effects
    where id = any(cast(:ids as uuid[])) and (cast(:tenant as text) is null or tenant = :tenant)
    union select d.id from effects d where d.caused_by = any(cast(:ids as uuid[]))
      and (cast(:tenant as text) is null or d.tenant = :tenant)
)
select cast(e.id as text) as id, e.kind, e.state, e.settled_at is not null as settled, e.request is null as erased,
       cast(e.caused_by as text) as caused_by, e.settled_at
from named join effects e using (id) order by e.id
""")

_ERASE = text("""
with chosen as (
    select id, attempt from effects
    where id = any(cast(:ids as uuid[])) and settled_at is not null and request is not null
    order by id for no key update
), erased as (
    update effects e set request = null, context = '{}' from chosen c where e.id = c.id returning e.id, e.attempt
), passed as (
    delete from kept_requests k using erased x where k.effect_id = x.id
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'erased', attempt, :actor, jsonb_build_object('reason', cast(:reason as text)) from erased
)
select cast(id as text) from erased
""")

_QUOTED = text("""
select count(*) from effects e
where e.id = any(cast(:ids as uuid[])) and (position(:words in lower(e.outcome::text)) > 0 or exists (
    select from journal j where j.effect_id = e.id and position(:words in lower(j.evidence::text)) > 0))
""")


def written_to(
    connection: Connection, address: str, *, tenant: str | None, after: str, batch: int
) -> tuple[str | None, list[str]]:
    """Look through the next `batch` effects for a recipient: the last id (None at the end), and those found."""
    given = {"to": address.lower(), "tenant": tenant, "after": after, "batch": batch}
    row = connection.execute(_TO, given).one()
    return row.last, list(row.found)


def standing(connection: Connection, ids: Sequence[str], *, tenant: str | None) -> list[dict[str, Any]]:
    """How these effects stand, and the receipts they have caused."""
    rows = connection.execute(_STANDING, {"ids": list(ids), "tenant": tenant}).mappings()
    return [dict(row) for row in rows]


def erase(connection: Connection, ids: Sequence[str], *, actor: str, reason: str) -> list[str]:
    """Take the requests of the settled ones among `ids`, with a fact each in the same statement; those erased now."""
    return list(connection.execute(_ERASE, {"ids": list(ids), "actor": actor, "reason": reason}).scalars())


def quoting(connection: Connection, ids: Sequence[str], words: str) -> int:
    """How many of `ids` have an outcome or a fact that quotes these words: written by people, kept for ever."""
    return int(connection.execute(_QUOTED, {"ids": list(ids), "words": words.lower()}).scalar_one())
