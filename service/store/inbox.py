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

# A function of the schema (migration 0008): a webhook belongs to no tenant, and whoever keeps one need not have the
# right to change effects.
_RECEIVE = text("""
select new, nudged from counterfoil_receive(:provider, :event_id, :type, :object_id, :object_type,
    cast(:effect_id as uuid), :payment_intent, :at, :actor, :patience)
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
