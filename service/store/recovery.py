"""Recovery: after a database went back in time, everything that it holds as unsettled may have been sent.

So it is marked in doubt, and its attempts' numbers are raised by a large step: an attempt of the life that was lost can
never carry the number of one that comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

# More than any effect can have been attempted in the life that was lost (COUNTERFOIL_ATTEMPT_BUDGET is 60, and a
# person may replay that a few times).
ATTEMPT_STEP = 1_000
BATCH_EFFECTS = 500  # marked in one short transaction

# The last claim that the database knows. It is not later than the moment the database went back to, because nothing
# was claimed since; nor is the beginning of the life that it remembers. One that remembers neither asks for everything:
# the oldest effect says nothing, for it may have been accepted after the database went back. The journal is read, not
# `first_sent_at`, which a recovery that was cut short has set.
_KNOWN_UNTIL = text("""
select coalesce(
    (select at from journal where fact = 'claimed' order by id desc limit 1),
    (select max(released_at) from incarnations), timestamptz '2010-01-01 00:00:00Z')
""")

# Not doubted: what was accepted since (nothing was claimed since), and what was scheduled for later and never tried.
_DOUBTFUL = """
    from outbox o join effects e on e.id = o.effect_id
    where not (e.attempt = 0 and e.not_before is not null and e.not_before > now())
      and not exists (select 1 from journal j where j.effect_id = e.id and j.id > :last_fact
                      and j.fact in ('accepted', 'recovered'))
"""

_COUNT = text(f"select e.state, count(*) as effects {_DOUBTFUL} group by e.state")

_DOUBT = text(f"""
with chosen as (
    select e.id, e.state {_DOUBTFUL} order by e.id limit :batch for update of e
), doubted as (
    update effects e set
        state = case when e.state = 'executing' then 'unknown' else e.state end, lease_until = null, in_doubt = true,
        first_sent_at = coalesce(e.first_sent_at, e.created_at), patience_from = now(),
        attempt = e.attempt + :step, budget_from = e.attempt + :step,
        -- A blind provider is told by this note that a copy may be out: the letter's policy decides.
        progress = case when e.kind = 'email'
            then e.progress || jsonb_build_object(
                'unanswered', greatest(1, coalesce((e.progress ->> 'unanswered')::int, 0)))
            else e.progress end
    from chosen c where e.id = c.id returning e.id, e.attempt, c.state as was
), due as (
    update outbox o set road = 'later', available_at = now() from doubted d
    where o.effect_id = d.id and o.road = 'published'
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'leased_out', attempt - :step, :actor, '{{}}'::jsonb from doubted where was = 'executing'
    union all select id, 'recovered', attempt, :actor, jsonb_build_object('was', was) from doubted
)
select count(*) from doubted
""")

_KNOWN = text("""
select cast(id as text) as id, kind, state, provider_ref, amount, currency, progress ->> 'payment_intent' as intent,
       progress ->> 'refund' as refund
from effects where id = any(cast(:ids as uuid[]))
""")

_POINT = text("""
with pointed as (
    update effects e set in_doubt = true, first_sent_at = coalesce(e.first_sent_at, e.created_at),
        progress = e.progress || jsonb_build_object(cast(:name as text), cast(:ref as text))
    where id = cast(:id as uuid) and state not in ('succeeded', 'failed') and progress ->> :name is null
    returning id, attempt
)
insert into journal (effect_id, fact, attempt, actor, evidence)
select id, 'recovered', attempt, :actor, jsonb_build_object(cast(:name as text), cast(:ref as text)) from pointed
""")

_STRANGERS = text("""
select count(*) from unnest(cast(:ids as uuid[])) as asked (id)
where not exists (select 1 from effects e where e.id = asked.id)
""")


@dataclass(frozen=True, slots=True)
class Known:
    """An effect of ours that an object at the provider names. `ref` is the object we hold for it, if any."""

    id: str
    kind: str
    state: str
    ref: str | None
    amount: int | None
    currency: str | None


def known_until(connection: Connection) -> datetime:
    """The last moment this database knows of having sent something: not later than what it went back to."""
    found = connection.execute(_KNOWN_UNTIL).scalar_one()
    assert isinstance(found, datetime)  # noqa: S101 - a timestamptz
    return found


def doubtful(connection: Connection, *, last_fact: int) -> dict[str, int]:
    """How many effects may have been sent without this database knowing, by state."""
    rows = connection.execute(_COUNT, {"last_fact": last_fact})
    return {row.state: int(row.effects) for row in rows}


def doubt(connection: Connection, *, last_fact: int, actor: str) -> int:
    """Mark the next batch of them; how many there were. Safe to repeat: what is marked is not chosen again."""
    given = {"last_fact": last_fact, "batch": BATCH_EFFECTS, "step": ATTEMPT_STEP, "actor": actor}
    return int(connection.execute(_DOUBT, given).scalar_one())


def known(connection: Connection, ids: Sequence[str]) -> Mapping[str, Known]:
    """Those of `ids` that are effects of ours."""
    rows = connection.execute(_KNOWN, {"ids": list(ids)})
    return {row.id: _known(row) for row in rows}


def _known(row: Any) -> Known:
    noted = row.refund if row.kind == "refund" else row.intent
    return Known(row.id, row.kind, row.state, row.provider_ref or noted, row.amount, row.currency)


def point(connection: Connection, effect_id: str, *, name: str, ref: str, actor: str) -> bool:
    """Let an unsettled effect know its object at the provider: its next attempt looks, and sends nothing blindly."""
    given = {"id": effect_id, "name": name, "ref": ref, "actor": actor}
    return connection.execute(_POINT, given).rowcount == 1


def strangers(connection: Connection, ids: Sequence[str]) -> int:
    """How many of a message's ids are no effects of ours: it was published in a life that was lost, or is forged."""
    return int(connection.execute(_STRANGERS, {"ids": list(ids)}).scalar_one())
