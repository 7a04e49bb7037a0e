"""The inbox: each event once, by its id; and the nudge: the effect it speaks of comes due in the same commit.

Rows are taken by pushing `available_at` ahead, like the outbox: whoever dies with a row in hand only delays it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from service.core.event import Event
from service.core.state import State

# The object names its effect itself (metadata), or we know it by the reference we have stored. Effects that act upon
# it (a capture of unknown outcome) are nudged as well: the event may be about them.
# A row that somebody works on is skipped: Stripe must not wait for us, and the event stays open for `take`.
_RECEIVE = text("""
with input as materialized (
    select cast(:provider as text) as provider, cast(:object_id as text) as object_id,
           cast(:payment_intent as text) as payment_intent, cast(:effect_id as uuid) as effect_id
), named as materialized (
    select e.id from input i join effects e on e.id = i.effect_id
    union select e.id from input i join effects e on e.provider_ref is not null and e.provider = i.provider
        and e.provider_ref in (i.object_id, i.payment_intent)
), linked as materialized (
    select id from named union select d.id from named n join effects d on d.concerns = n.id
), target as materialized (
    select e.id, e.attempt from linked l join effects e on e.id = l.id
    where e.state in ('unknown', 'awaiting') order by e.id for no key update of e skip locked
), event as (
    insert into inbox (provider, event_id, type, object_id, object_type, effect_id, payment_intent, event_at,
                       available_at)
    select i.provider, :event_id, :type, i.object_id, :object_type, i.effect_id, i.payment_intent, :at,
           now() + make_interval(secs => case when exists (select from target) then :patience else 0 end)
    from input i
    on conflict (provider, event_id) do nothing returning event_id
), due as (
    update effects e set not_before = null from target t where e.id = t.id and exists (select from event)
    returning e.id, e.attempt
), duty as (
    update outbox o set road = 'later', available_at = now()
    from due d where o.effect_id = d.id and o.road in ('later', 'published')
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'hinted', attempt, :actor,
           jsonb_build_object('event', cast(:event_id as text), 'type', cast(:type as text))
    from due
)
select (select count(*) from event) as new, array(select cast(id as text) from due) as nudged
""")

_TAKE = text("""
with due as (
    select provider, event_id from inbox where processed_at is null and available_at <= now()
    order by available_at limit :batch for update skip locked
), taken as (
    update inbox i set tries = tries + 1, available_at = now() + make_interval(secs => :hold)
    from due d where i.provider = d.provider and i.event_id = d.event_id
    returning i.*
)
select t.provider, t.event_id, t.type, t.object_id, t.object_type, t.payment_intent, t.received_at, t.tries,
       own.id is not null as by_name, cast(coalesce(own.id, by_ref.id) as text) as effect_id,
       coalesce(own.kind, by_ref.kind) as kind, coalesce(own.state, by_ref.state) as state,
       coalesce(own.provider_ref, own.progress ->> 'payment_intent', by_ref.provider_ref) as ref,
       extract(epoch from clock_timestamp() - t.received_at)::float8 as age
from taken t
left join effects own on own.id = t.effect_id
left join lateral (
    select e.id, e.kind, e.state, e.provider_ref from effects e
    where own.id is null and e.provider_ref is not null and e.provider = t.provider
      and e.provider_ref in (t.object_id, t.payment_intent)
    limit 1) by_ref on true
""")

_FINISH = text("""
update inbox i set processed_at = clock_timestamp(), result = r.result
from jsonb_to_recordset(cast(:rows as jsonb)) as r (provider text, event_id text, result text)
where i.provider = r.provider and i.event_id = r.event_id and i.processed_at is null
""")

_LATER = text("""
update inbox i set available_at = now() + make_interval(secs => r.seconds)
from jsonb_to_recordset(cast(:rows as jsonb)) as r (provider text, event_id text, seconds float8)
where i.provider = r.provider and i.event_id = r.event_id and i.processed_at is null
""")


@dataclass(frozen=True, slots=True)
class Received:
    """`new`: this event was not here before. `nudged`: effects whose attempt comes due now because of it."""

    new: bool
    nudged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """An open event, and the effect it speaks of if there is one; `ref` is how that effect knows its own object.

    `by_name`: the object itself names the effect, rather than we the object.
    """

    provider: str
    event_id: str
    type: str
    object_id: str
    object_type: str
    payment_intent: str | None
    received_at: datetime
    tries: int
    by_name: bool
    effect_id: str | None
    kind: str | None
    state: State | None
    ref: str | None
    age_seconds: float


def receive(connection: Connection, event: Event, *, actor: str, patience_seconds: float) -> Received:
    """Keep an event and nudge the effect it speaks of, in one commit; nothing at all when it was here before.

    A nudged event is looked at in `patience_seconds`, by when the effect's own attempt has had its turn.
    """
    row = connection.execute(
        _RECEIVE,
        {
            "provider": event.provider,
            "event_id": event.id,
            "type": event.type,
            "object_id": event.object_id,
            "object_type": event.object_type,
            "effect_id": event.effect_id,
            "payment_intent": event.payment_intent,
            "at": event.at,
            "actor": actor,
            "patience": patience_seconds,
        },
    ).one()
    return Received(row.new == 1, tuple(row.nudged))


def take(connection: Connection, batch: int, *, hold_seconds: float) -> list[Row]:
    """Take up to `batch` open events that are due; one that nobody finishes is open again in `hold_seconds`."""
    rows = connection.execute(_TAKE, {"batch": batch, "hold": hold_seconds})
    return [
        Row(
            r.provider,
            r.event_id,
            r.type,
            r.object_id,
            r.object_type,
            r.payment_intent,
            r.received_at,
            r.tries,
            r.by_name,
            r.effect_id,
            r.kind,
            State(r.state) if r.state else None,
            r.ref,
            r.age,
        )
        for r in rows
    ]


def finish(connection: Connection, results: Sequence[tuple[Row, str]]) -> None:
    """Close events, each with what came of it."""
    connection.execute(_FINISH, {"rows": _encode([{**_name(row), "result": result} for row, result in results])})


def later(connection: Connection, waits: Sequence[tuple[Row, float]]) -> None:
    """Look at these events again in so many seconds."""
    connection.execute(_LATER, {"rows": _encode([{**_name(row), "seconds": seconds} for row, seconds in waits])})


def _name(row: Row) -> dict[str, str]:
    return {"provider": row.provider, "event_id": row.event_id}


def _encode(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows)
