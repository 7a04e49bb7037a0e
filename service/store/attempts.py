"""Attempts: claim, record a recovery point, settle. Every write carries the attempt's number and is refused without it.

The guard stands in the SQL: `where id = … and attempt = … and state = 'executing'`. No row means that another attempt
owns the effect; then nothing is written but a journal fact (I9).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text

from service.core.effect import Attempt, Concerned, Policy
from service.core.errors import Quarantined
from service.core.state import State
from service.store import incarnation, links, orphans
from service.store.incarnation import GATE, LIFE, NOTHING, Seen
from service.store.links import READY
from service.store.retention import PURGED
from service.store.watermark import Watermark

# Claimable: due, and either at rest or held by an attempt whose lease is over. The row lock makes a second claim of
# the same effect wait and then see the first one's lease; order by id, so that two batches cannot deadlock. The lock is
# `no key`, since a caller whose open transaction holds a refund of this charge holds the charge's key (foreign key).
_DUE = """
    id = any(cast(:ids as uuid[])) and (not_before is null or not_before <= now())
    and (state in ('pending', 'unknown', 'awaiting') or (state = 'executing' and lease_until < now()))
"""
# An effect that awaits the provider's answer is only asked after: that spends nothing.
_SPENT = """
    (state <> 'awaiting' and (attempt - budget_from >= :budget
     or coalesce(patience_from, first_sent_at) < now() - make_interval(secs => :age_limit)))
"""

_ATTEMPT = """
    cast(e.id as text) as id, e.tenant, e.kind, e.attempt, e.prior, e.in_doubt, e.request, e.progress, e.policy,
    e.dedupe_key, e.context,
    extract(epoch from clock_timestamp())::float8 as clock,
    coalesce(extract(epoch from clock_timestamp() - e.first_sent_at)::float8, 0) as sent_age,
    coalesce(extract(epoch from clock_timestamp() - coalesce(e.patience_from, e.first_sent_at))::float8, 0) as waited,
    e.attempt - e.budget_from as tries, cast(t.id as text) as concerned_id, t.state as concerned_state,
    coalesce(t.provider_ref, t.progress ->> 'payment_intent') as concerned_ref, t.progress ->> 'effect_id' as mark
"""

# A database that went back in time claims nothing, from its first instant on (`incarnation`); one that was released
# finds at its first claim what an earlier life has left at the provider (`orphans`).
_CLAIM = text(f"""
with {GATE}, {orphans.ANY}, due as (
    select id, state, attempt, o.ref, o.found, o.sent_at
    from effects e left join lateral ({orphans.OF_EFFECT}) o on true
    where (select open from gate) and {_DUE} and ({_SPENT}) is not true and {READY}
      and (cast(:kind as text) is null or kind = :kind)
    order by id for no key update of e
), claimed as (
    update effects e set
        state = 'executing', attempt = e.attempt + 1,
        lease_until = clock_timestamp() + make_interval(secs => :lease),
        -- W6: committed before the first byte goes out, so that nobody can doubt later whether one may have.
        -- What an earlier life has sent for this key counts from then on.
        first_sent_at = coalesce(e.first_sent_at, d.sent_at, clock_timestamp()),
        in_doubt = e.in_doubt or d.state = 'executing' or d.ref is not null,
        progress = coalesce(e.progress || d.found, e.progress)
    from due d where e.id = d.id
    returning e.*, d.state as prior, d.ref
), facts as (
    insert into journal (effect_id, fact, attempt, actor)
    select id, 'leased_out', attempt - 1, :actor from claimed where prior = 'executing'
    union all select id, 'claimed', attempt, :actor from claimed
)
select g.open, g.lsn, g.database, g.life, e.ref, {_ATTEMPT}
from gate g left join claimed e on true left join effects t on t.id = e.concerns
""")

# An effect as an attempt would find it, without claiming it: for asking the provider, never for sending.
_STANDING = text(f"""
select {_ATTEMPT.replace("e.request", f"coalesce(e.request, {PURGED}) as request")}
from (select *, state as prior from effects where id = cast(:id as uuid)) e left join effects t on t.id = e.concerns
""")

# A message that kills its worker each time never reaches a settlement, so the budget is enforced here as well.
_PARK_SPENT = text(f"""
with spent as (
    select id, state from effects where {_DUE} and {_SPENT} order by id for no key update
), parked as (
    update effects e set state = 'parked', lease_until = null, in_doubt = e.in_doubt or s.state = 'executing'
    from spent s where e.id = s.id returning e.id, e.attempt, e.attempt - e.budget_from as tries
), held as (
    update outbox o set road = 'parked', parked_at = now(),
        parked_reason = case when p.tries >= :budget then 'attempt_budget' else 'age_limit' end
    from parked p where o.effect_id = p.id returning o.effect_id, o.parked_reason, p.attempt
), facts as (
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select effect_id, 'parked', attempt, :actor, jsonb_build_object('reason', parked_reason) from held
)
select cast(effect_id as text) from held
""")

# Behind a step that is recorded money moves, so an attempt of an earlier life ends here.
_RECORD = text(f"""
with {LIFE}, input as materialized (
    select * from jsonb_to_recordset(cast(:rows as jsonb)) as r (id uuid, attempt bigint, progress jsonb)
), owned as (
    update effects e set progress = e.progress || i.progress,
        lease_until = clock_timestamp() + make_interval(secs => :lease)
    from input i where e.id = i.id and e.attempt = i.attempt and e.state = 'executing' and e.lease_until > now()
      and (select open from gate)
    returning e.id, e.attempt
), facts as (
    insert into journal (effect_id, fact, attempt, actor) select id, 'progressed', attempt, :actor from owned
)
select cast(id as text) as id, attempt from owned
""")

_SETTLE = text("""
with input as materialized (
    select * from jsonb_to_recordset(cast(:rows as jsonb)) as r (
        id uuid, attempt bigint, state text, fact text, in_doubt boolean, outcome jsonb, evidence jsonb, provider text,
        provider_ref text, after_seconds float8, parked_reason text, error text)
), owned as (
    update effects e set
        state = i.state, in_doubt = i.in_doubt, outcome = coalesce(i.outcome, e.outcome), lease_until = null,
        provider = coalesce(i.provider, e.provider), provider_ref = coalesce(i.provider_ref, e.provider_ref),
        not_before = now() + make_interval(secs => i.after_seconds),
        -- At rest with the provider: what was spent until now does not count against what may come after.
        budget_from = case when i.state = 'awaiting' then e.attempt else e.budget_from end,
        patience_from = case when i.state = 'awaiting' then now() else e.patience_from end,
        settled_at = case when i.state in ('succeeded', 'failed') then now() end
    -- The same attempt may still answer after its lease was declared lost, as long as nobody has claimed since:
    -- a late own answer is evidence and moves `unknown` or `parked` forward, never back.
    from input i where e.id = i.id and e.attempt = i.attempt and (
        e.state = 'executing'
        or (e.state in ('unknown', 'parked', 'awaiting') and i.state in ('succeeded', 'failed'))
        or (e.state = 'unknown' and i.state = 'awaiting'))
    returning e.id, e.attempt, e.concerns
-- By number from here on: two attempts of one effect may end in one batch of one worker, and one of them owns nothing.
), closed as (
    delete from outbox o using owned w, input i
    where o.effect_id = w.id and i.id = w.id and i.attempt = w.attempt and i.state in ('succeeded', 'failed')
), again as (
    update outbox o set
        road = case when i.state = 'parked' then 'parked' else 'later' end,
        available_at = now() + make_interval(secs => coalesce(i.after_seconds, 0)),
        parked_at = case when i.state = 'parked' then now() end, parked_reason = i.parked_reason, last_error = i.error
    from owned w, input i
    where o.effect_id = w.id and i.id = w.id and i.attempt = w.attempt and i.state not in ('succeeded', 'failed')
), facts as (
    -- I9: an answer that came after the lease was lost is evidence and is kept; it changes no state.
    insert into journal (effect_id, fact, attempt, actor, evidence)
    select i.id, case when w.id is null then 'late_answer' else i.fact end, i.attempt, :actor,
        case when w.id is null then i.evidence || jsonb_build_object('answer', i.state) else i.evidence end
    from input i left join owned w on w.id = i.id and w.attempt = i.attempt
)
select cast(w.id as text) as id, w.attempt,
       w.concerns is not null or exists (select 1 from effects d where d.concerns = w.id) as linked
from owned w
""")


_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
"""NUL as JSON spells it, and not a backslash followed by `u0000`."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt writes when it is over. `after_seconds` is set unless `state` is final or parked."""

    id: str
    attempt: int
    state: State
    fact: str
    in_doubt: bool
    evidence: Mapping[str, Any] = field(default_factory=dict)
    outcome: Mapping[str, Any] | None = None
    provider: str | None = None
    provider_ref: str | None = None
    after_seconds: float | None = None
    parked_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an attempt owns its effect (seconds), and when an effect is given to a person."""

    lease: float
    budget: int
    age_limit: float


def claim(
    connection: Connection,
    ids: Sequence[str],
    limits: Limits,
    *,
    actor: str,
    kind: str | None = None,
    watermark: Watermark | None = None,
) -> list[Attempt]:
    """Begin an attempt at each effect that is due and free; the others are left alone. One commit in autocommit.

    With `kind` only at effects of that kind: a message whose task is `cancel` must not cancel what was to be captured.
    `watermark` is what this host remembers of the database; it is raised before this returns.
    Raises Quarantined, nothing claimed, when the database went back in time.
    """
    seen = watermark.seen() if watermark else NOTHING
    given = {**_limits(limits), **seen.parameters(), "ids": list(ids), "actor": actor, "kind": kind}
    gate, *_ = rows = connection.execute(_CLAIM, given).all()
    if not gate.open:
        _open(connection, seen, actor)
        gate, *_ = rows = connection.execute(_CLAIM, given).all()
    claimed = [row for row in rows if row.id is not None]
    if claimed and watermark:
        last = claimed[-1]
        watermark.saw(Seen(gate.database, gate.life, gate.lsn, last.id, last.attempt))
    if adopted := [(row.id, row.ref) for row in claimed if row.ref]:
        orphans.adopted(connection, adopted, actor=actor)
    # A lost lease reads as `unknown`: that attempt may have sent.
    return [_attempt(row, State.UNKNOWN if row.prior == State.EXECUTING else State(row.prior)) for row in claimed]


def _open(connection: Connection, seen: Seen, actor: str) -> None:
    """The gate was closed: begin the first life of a new database, or raise Quarantined."""
    incarnation.begin(connection, seen, actor=actor)
    standing = incarnation.look(connection, seen)
    if not standing.open:
        raise Quarantined(str(standing.reason))


def park_spent(connection: Connection, ids: Sequence[str], limits: Limits, *, actor: str) -> list[str]:
    """Park each effect that is due but has spent its attempts or its time; return their ids."""
    rows = connection.execute(
        _PARK_SPENT, {"budget": limits.budget, "age_limit": limits.age_limit, "ids": list(ids), "actor": actor}
    )
    return list(rows.scalars())


def record(
    connection: Connection, rows: Sequence[tuple[Attempt, Mapping[str, Any]]], lease: float, *, actor: str
) -> set[tuple[str, int]]:
    """Commit recovery points (W11) and renew the leases; return id and number of the attempts that owned theirs."""
    encoded = [{"id": a.id, "attempt": a.number, "progress": dict(p)} for a, p in rows]
    owned = connection.execute(_RECORD, {"rows": _encode(encoded), "lease": lease, "actor": actor})
    return {(row.id, row.attempt) for row in owned}


def settle(connection: Connection, settlements: Sequence[Settlement], *, actor: str) -> set[tuple[str, int]]:
    """Write what the attempts learned, each if it still owns its effect; return id and number of those that did.

    A final state deletes the outbox row in the same commit (I7); any other makes it come due again or parks it.
    """
    encoded = [{name: getattr(s, name) for name in Settlement.__slots__} for s in settlements]
    rows = connection.execute(_SETTLE, {"rows": _encode(encoded), "actor": actor}).all()
    if linked := [row.id for row in rows if row.linked]:
        links.wake(connection, linked)
    return {(row.id, row.attempt) for row in rows}


def standing(connection: Connection, effect_id: str) -> Attempt | None:
    """An effect as its last attempt left it, `number` and all, without claiming it; None when there is none."""
    row = connection.execute(_STANDING, {"id": effect_id}).one_or_none()
    return _attempt(row, State(row.prior)) if row else None


def _limits(limits: Limits) -> dict[str, float]:
    return {"lease": limits.lease, "budget": limits.budget, "age_limit": limits.age_limit}


def _attempt(row: Any, prior: State) -> Attempt:
    concerned = row.concerned_id and Concerned(
        row.concerned_id, State(row.concerned_state), row.concerned_ref, row.mark
    )
    return Attempt(
        id=row.id,
        tenant=row.tenant,
        kind=row.kind,
        number=row.attempt,
        prior=prior,
        in_doubt=row.in_doubt,
        sent_age_seconds=row.sent_age,
        tries=row.tries,
        waited_seconds=row.waited,
        request=row.request,
        progress=row.progress,
        policy=Policy(row.policy),
        dedupe_key=row.dedupe_key,
        context=row.context,
        concerned=concerned or None,
        clock=row.clock,
    )


def _encode(rows: Sequence[Mapping[str, Any]]) -> str:
    # A provider may send NUL or half a surrogate pair, which jsonb refuses; one such answer must not cost the others
    # of its batch their settlement (W9).
    encoded = json.dumps(rows, default=dict, ensure_ascii=False)
    return _NUL.sub("\\1\ufffd", encoded).encode(errors="replace").decode()
