"""Operations: one verb upon many effects. First a plan that freezes the set, then a start, and the relay drives it.

Replay makes unsettled effects come due now with a new budget: same request, same keys, what is in doubt stays in doubt.
Park holds them until a person lifts it; unpark lifts a person's park and nothing else. Settled effects are final, a
live attempt is left alone, and what changed since the plan is skipped and counted. Nothing here depends on the process
that asked: it may go, and `pause`, `resume` and `cancel` come from anywhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from uuid_utils import uuid7

from service.core.errors import OperationNotFound, ValidationError
from service.core.operation import Pace, Planned, Progress, Selection, Verb
from service.core.state import FINAL, State
from service.store import actions, bell, operations, selection
from service.store.actions import Door
from service.store.database import statement, transaction

LIMIT_MAX = 10_000  # a plan is read by a person before it is carried out
BATCH_MAX = 1_000  # their rows stay locked together
REASON_LENGTH_MAX = 500  # it is kept once for each effect
PLAN_SECONDS = 3600.0  # what an incident has changed by then must be looked at again
REPLAYS_MAX = 3  # of one effect: a fourth time by itself helps nobody, so somebody must say that he means it
SAMPLE = 5
STATES = ("parked", "unknown", "stuck")
__all__ = [
    "Pace",
    "Planned",
    "Progress",
    "Selection",
    "Verb",
    "cancel",
    "items",
    "listed",
    "pause",
    "plan",
    "resume",
    "show",
    "start",
]


def plan(verb: Verb, chosen: Selection, *, actor: str, max_replays: int = REPLAYS_MAX, force: bool = False) -> Planned:
    """Freeze what `chosen` describes and touch none of it. `force` lifts the limit of replays per effect.

    Raises ValidationError when nothing is selected or a selector is wrong.
    """
    _check(chosen)
    with transaction() as connection:
        if chosen.ids:
            found: Sequence[Mapping[str, Any]] = []
            wanted = tuple(dict.fromkeys(chosen.ids))
            first = wanted[: chosen.limit]
            known = selection.by_id(connection, first, tenant=chosen.tenant)
            fit = _fitting(connection, chosen, first)
            found = [{**known.get(one, {"effect_id": one}), "fits": fit is None or one in fit} for one in first]
            more = len(wanted) > chosen.limit
        else:
            found = selection.unsettled(connection, chosen.wanted(), limit=chosen.limit + 1)
            more = len(found) > chosen.limit
            found = found[: chosen.limit]
        eligible, skipped = _sorted_out(verb, found, chosen, None if force else max_replays)
        return _frozen(connection, verb, chosen, eligible, skipped=skipped, more=more, actor=actor)


def _fitting(connection: Any, chosen: Selection, ids: tuple[str, ...]) -> set[str] | None:
    """Those of `ids` that the other selectors describe too; None when there are no others than kind and tenant."""
    others = chosen.wanted()
    if not set(others) - {"kind", "tenant"}:
        return None
    rows = selection.unsettled(connection, {**others, "ids": list(ids)}, limit=len(ids))
    return {str(row["effect_id"]) for row in rows}


def _check(chosen: Selection) -> None:
    wanted = chosen.wanted()
    for name, value in wanted.items():  # a variable that a script forgot to set would mean everything
        if isinstance(value, str) and not value.strip():
            raise ValidationError(f"{name.replace('_', '-')} is empty", field=name)
    if not chosen.ids and not set(wanted) - {"tenant"}:
        raise ValidationError(
            "say which effects: --id, --state parked, --group, --older-than …; there is no 'everything'",
            field="selection",
        )
    if chosen.state is not None and chosen.state not in STATES:
        raise ValidationError(f"only {', '.join(STATES)} effects can be selected by state", field="state")
    if not 1 <= chosen.limit <= LIMIT_MAX:
        raise ValidationError(f"the limit is 1 to {LIMIT_MAX}", field="limit")


def _sorted_out(
    verb: Verb, found: Sequence[Mapping[str, Any]], chosen: Selection, max_replays: int | None
) -> tuple[list[Mapping[str, Any]], dict[str, tuple[str, ...]]]:
    eligible: list[Mapping[str, Any]] = []
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    for row in found:
        reason = _against(verb, row, chosen, max_replays)
        if reason is None:
            eligible.append(row)
        else:
            skipped[reason].append(str(row["effect_id"]))
    return eligible, {reason: tuple(ids) for reason, ids in skipped.items()}


def _against(verb: Verb, row: Mapping[str, Any], chosen: Selection, max_replays: int | None) -> str | None:
    """Why an effect is none of this operation's; None when it is."""
    if "state" not in row:
        return "no such effect"
    state = State(row["state"])
    if state in FINAL:
        return f"settled: {state.value}"
    if row["live"]:
        return "an attempt is at work"
    if chosen.ids and chosen.kind is not None and row["kind"] != chosen.kind:
        return f"another kind than {chosen.kind}"
    if chosen.ids and chosen.state in (State.PARKED, State.UNKNOWN) and state != chosen.state:
        return f"{state.value}, not {chosen.state}"
    return _against_verb(verb, row, state, max_replays)


def _against_verb(verb: Verb, row: Mapping[str, Any], state: State, max_replays: int | None) -> str | None:
    if not row.get("fits", True):
        return "the other selectors do not describe it"
    if verb is Verb.REPLAY:
        often = max_replays is not None and row["replays"] >= max_replays
        return f"replayed {row['replays']} times before" if often else None
    if verb is Verb.UNPARK:
        if state is not State.PARKED:
            return f"{state.value}, not parked"
        by_person = row["parked_reason"] == "by_person"
        return None if by_person else f"parked for {row['parked_reason']}: replay it"
    if state is State.AWAITING:
        return "the provider is at work: there is nothing to hold back"
    return "parked already" if state is State.PARKED else None


def _frozen(
    connection: Any,
    verb: Verb,
    chosen: Selection,
    eligible: Sequence[Mapping[str, Any]],
    *,
    skipped: Mapping[str, tuple[str, ...]],
    more: bool,
    actor: str,
) -> Planned:
    money: Counter[str] = Counter()
    for row in eligible:
        if row["currency"]:
            money[row["currency"]] += row["amount"]
    id_ = str(uuid7())
    items = [
        {"effect_id": row["effect_id"], "position": n, "seen_state": row["state"], "seen_attempt": row["attempt"]}
        for n, row in enumerate(eligible, start=1)
    ]
    selector = {**chosen.wanted(), **({"ids": len(chosen.ids)} if chosen.ids else {}), "limit": chosen.limit}
    about = {
        "id": id_,
        "verb": verb.value,
        "selector": selector,
        "tenant": chosen.tenant,
        "total": len(items),
        "skipped": {reason: len(ids) for reason, ids in skipped.items()},
        "money": money,
        "more": more,
        "actor": actor,
        "seconds": PLAN_SECONDS,
    }
    expires_at = operations.plan(connection, about, items)
    ids = tuple(str(row["effect_id"]) for row in eligible)
    oldest = min((row["created_at"] for row in eligible), default=None)
    return Planned(id_, verb, ids, skipped, dict(money), more, oldest, tuple(eligible[:SAMPLE]), expires_at)


def start(
    id_: str, *, reason: str, actor: str, door: Door, pace: Pace | None = None, tenant: str | None = None
) -> Progress:
    """Let the relay carry out a plan: exactly the frozen set.

    Raises ValidationError (no reason, a wrong pace, an expired plan, started before), OperationNotFound.
    """
    if not 1 <= len(reason.strip()) <= REASON_LENGTH_MAX:
        raise ValidationError(
            f"a reason of 1 to {REASON_LENGTH_MAX} characters is needed; it is kept in the journal of every effect",
            field="reason",
        )
    how = pace or Pace()
    if how.per_second is not None and not 0 < how.per_second <= 100_000:
        raise ValidationError("the rate is more than 0 and at most 100000 effects a second", field="rate")
    if not (0 <= how.canary <= LIMIT_MAX and 0 <= (how.failures_max or 0) <= LIMIT_MAX):
        raise ValidationError(f"canary and max-failures are 0 to {LIMIT_MAX}", field="canary")
    if not 1 <= how.batch <= BATCH_MAX:
        raise ValidationError(f"the batch is 1 to {BATCH_MAX} effects", field="batch")
    with transaction() as connection:
        begun = operations.start(connection, id_, reason=reason.strip(), actor=actor, tenant=tenant, **asdict(how))
        if begun:
            actions.write(connection, actor=actor, door=door, verb="start", subject=f"operation {id_}", reason=reason)
    found = show(id_, tenant=tenant)
    if not begun:
        why = "its plan has expired" if found.state == "planned" else f"it is {found.state} already"
        raise ValidationError(f"operation {id_} cannot be started: {why}; make a new plan", field="operation")
    bell.ring()
    return found


def show(id_: str, *, tenant: str | None = None) -> Progress:
    """Raises OperationNotFound when there is none (for this tenant)."""
    with statement() as connection:
        row = operations.show(connection, id_, tenant=tenant)
    if row is None:
        raise OperationNotFound(f"no operation {id_}; counterfoil ops list shows them")
    return _progress(row)


def listed(
    *, tenant: str | None = None, state: str | None = None, after: str | None = None, limit: int = 50
) -> list[Progress]:
    """Newest first."""
    with statement() as connection:
        return [
            _progress(row)
            for row in operations.listed(connection, tenant=tenant, state=state, after=after, limit=limit)
        ]


def items(id_: str, *, after: int = 0, limit: int = 200) -> list[dict[str, Any]]:
    """The frozen set beyond the position `after`, each with how it stands now."""
    with statement() as connection:
        return operations.items(connection, id_, after=after, limit=limit)


def pause(id_: str, *, actor: str, door: Door, reason: str | None = None, tenant: str | None = None) -> Progress:
    """No further effect is touched until `resume`; those that were are on their way."""
    return _turn(id_, "paused", ("running",), actor=actor, door=door, reason=reason, tenant=tenant)


def resume(id_: str, *, actor: str, door: Door, reason: str | None = None, tenant: str | None = None) -> Progress:
    """Go on where it was paused."""
    return _turn(id_, "running", ("paused",), actor=actor, door=door, reason=reason, tenant=tenant)


def cancel(id_: str, *, actor: str, door: Door, reason: str | None = None, tenant: str | None = None) -> Progress:
    """Never touch the rest. What was replayed cannot be called back; it happens once, as always."""
    return _turn(
        id_, "cancelled", ("planned", "running", "paused"), actor=actor, door=door, reason=reason, tenant=tenant
    )


def _turn(
    id_: str,
    state: str,
    from_states: Sequence[str],
    *,
    actor: str,
    door: Door,
    reason: str | None,
    tenant: str | None,
) -> Progress:
    with transaction() as connection:
        turned = operations.turn(connection, id_, state, from_states, reason=reason, tenant=tenant)
        if turned:
            actions.write(connection, actor=actor, door=door, verb=state, subject=f"operation {id_}", reason=reason)
    found = show(id_, tenant=tenant)
    if not turned:
        raise ValidationError(f"operation {id_} is {found.state}: it cannot become {state}", field="operation")
    bell.ring()
    return found


def _progress(row: Mapping[str, Any]) -> Progress:
    found = dict(row)
    if found["state"] != "running":
        found["unattended_seconds"] = None
    return Progress(**found)
