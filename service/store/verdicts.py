"""What was found out about an effect besides its attempts: by asking the provider, from a hint, or by a person.

Every write is guarded by the attempt and the state that were looked at; no row means that the effect has moved on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from service.core.state import State

# Under the row's lock, so that the fact carries the attempt it speaks of, in the journal's order (I8). `no key`, since
# a caller whose open transaction accepts a refund of this charge holds the charge's key (foreign key).
_NOTE = text("""
insert into journal (effect_id, fact, attempt, actor, evidence)
select e.id, :fact, e.attempt, :actor, cast(:evidence as jsonb)
from (select id, attempt from effects where id = cast(:id as uuid) for no key update) e
""")

_HOLD = text("""
select 1 from effects where id = cast(:id as uuid) and attempt = :attempt and state = :state for no key update
""")

# W11 healed from outside: the id that a lost answer would have told. Attempts go on from there.
_ADOPT = text("""
with adopted as (
    update effects set progress = progress || jsonb_build_object('payment_intent', cast(:intent as text))
    where id = cast(:id as uuid) and attempt = :attempt and state in ('unknown', 'parked')
      and not progress ? 'payment_intent'
    returning id, attempt
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'hinted', attempt, :actor, jsonb_build_object('payment_intent', cast(:intent as text)) from adopted
)
select 1 from adopted
""")

# Seconds since the last attempt began; an attempt sends before its lease is over, never after. A step that was answered
# with a server error may be carried out by the provider's own repair, long after that.
_QUIET = text("""
select extract(epoch from clock_timestamp() - max(at) filter (where fact = 'claimed'))::float8 as seconds,
       coalesce(bool_or(evidence ? 'step' and evidence ->> 'status' ~ '^5'), false) as server_error
from journal where effect_id = cast(:id as uuid)
""")

# What was noted of the doubt is over with it: a later one is about another send, and counts its own misses and copies.
_RELEASE = text("""
with released as (
    update effects set state = 'pending', in_doubt = false, lease_until = null, not_before = null,
        budget_from = attempt, patience_from = now(),
        progress = progress - array['unanswered', 'missed_at_age_seconds', 'stored_500', 'look_up']
    where id = cast(:id as uuid) and attempt = :attempt and state in ('unknown', 'parked')
    returning id
), due as (
    update outbox o set road = 'later', available_at = now(), parked_at = null, parked_reason = null, last_error = null
    from released r where o.effect_id = r.id
)
select 1 from released
""")

_PARK = text("""
with parked as (
    update effects set state = 'parked', in_doubt = true, lease_until = null
    where id = cast(:id as uuid) and attempt = :attempt and state in ('unknown', 'pending')
    returning id, attempt
), held as (
    update outbox o set road = 'parked', parked_at = now(), parked_reason = :reason, last_error = :reason
    from parked p where o.effect_id = p.id
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select id, 'parked', attempt, :actor, jsonb_build_object('reason', cast(:reason as text)) from parked
)
select 1 from parked
""")


def note(connection: Connection, effect_id: str, fact: str, *, actor: str, evidence: Mapping[str, Any]) -> None:
    """Write one fact that changes nothing."""
    connection.execute(
        _NOTE, {"id": effect_id, "fact": fact, "actor": actor, "evidence": json.dumps(dict(evidence), default=str)}
    )


def hold(connection: Connection, effect_id: str, *, attempt: int, state: State) -> bool:
    """Keep the effect as it was looked at until the transaction ends; False when it has moved on."""
    found = connection.execute(_HOLD, {"id": effect_id, "attempt": attempt, "state": state.value})
    return found.one_or_none() is not None


def adopt(connection: Connection, effect_id: str, *, attempt: int, intent: str, actor: str) -> bool:
    """Record a PaymentIntent that a hint named and the provider confirmed as ours; False when it is too late."""
    parameters = {"id": effect_id, "attempt": attempt, "intent": intent, "actor": actor}
    return connection.execute(_ADOPT, parameters).one_or_none() is not None


@dataclass(frozen=True, slots=True)
class Quiet:
    """For how long no attempt has begun, for ever when none ever has; and whether a step met a server error."""

    seconds: float
    server_error: bool = False


def quiet(connection: Connection, effect_id: str) -> Quiet:
    """How long nothing has been sent, and whether the provider may still repair what was."""
    row = connection.execute(_QUIET, {"id": effect_id}).one()
    return Quiet(math.inf if row.seconds is None else float(row.seconds), bool(row.server_error))


def release(connection: Connection, effect_id: str, *, attempt: int) -> bool:
    """Back to `pending` and due, no longer in doubt: only for what is proven not to have been done."""
    return connection.execute(_RELEASE, {"id": effect_id, "attempt": attempt}).one_or_none() is not None


def park(connection: Connection, effect_id: str, *, attempt: int, reason: str, actor: str) -> bool:
    """Give an effect that would be sent (again) to a person, before it is; False when it has moved on."""
    parameters = {"id": effect_id, "attempt": attempt, "reason": reason, "actor": actor}
    return connection.execute(_PARK, parameters).one_or_none() is not None
