"""Replay: a person makes unsettled effects come due now. First a plan, then exactly that frozen set.

Replaying is safe whatever happened before: it mints no key and changes no request, it makes the same row come due; an
effect that is in doubt stays in doubt. Settled effects have nothing to replay, and a live attempt is left alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.core.errors import ValidationError
from service.core.state import State
from service.store import bell, effects, outbox
from service.store.database import transaction

LIMIT_MAX = 10_000  # a plan is read by a person before it is carried out
BATCH = 500  # one commit's share, so that no row stays locked for long
REPLAYABLE = (State.PARKED, State.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which effects: by id, or by state (parked or unknown) and kind. Never everything."""

    ids: tuple[str, ...] = ()
    state: State | None = None
    kind: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do. `skipped`: ids by reason. `money`: minor units by currency. `more`: the limit cut it."""

    eligible: tuple[Mapping[str, Any], ...]
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    more: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The frozen set."""
        return tuple(row["effect_id"] for row in self.eligible)

    @property
    def money(self) -> dict[str, int]:
        """Minor units that may move, by currency."""
        sums: Counter[str] = Counter()
        for row in self.eligible:
            if row["currency"]:
                sums[row["currency"]] += row["amount"]
        return dict(sums)


@dataclass(frozen=True, slots=True)
class Done:
    """What a replay did. `changed`: ids that were settled or claimed between the plan and now."""

    replayed: tuple[str, ...]
    changed: tuple[str, ...]


def plan(selection: Selection) -> Plan:
    """Look and write nothing. Raises ValidationError when nothing is selected."""
    if not selection.ids and selection.state is None:
        raise ValidationError("say what to replay: --id, or --state parked or unknown", field="selection")
    if selection.state is not None and selection.state not in REPLAYABLE:
        raise ValidationError("only parked and unknown effects can be selected by state", field="state")
    if not 1 <= selection.limit <= LIMIT_MAX:
        raise ValidationError(f"the limit is 1 to {LIMIT_MAX}", field="limit")
    return _by_id(selection) if selection.ids else _by_state(selection)


def execute(chosen: Plan, *, actor: str, reason: str) -> Done:
    """Carry out a plan; rows that changed since are left alone and reported. `reason` goes into the journal."""
    if not reason.strip():
        raise ValidationError("a replay needs a reason; it is kept in the journal", field="reason")
    ids, replayed = chosen.ids, []
    for i in range(0, len(ids), BATCH):
        with transaction() as connection:
            replayed += outbox.replay(connection, ids[i : i + BATCH], actor=actor, reason=reason)
        bell.ring()
    done = set(replayed)
    return Done(tuple(replayed), tuple(effect_id for effect_id in ids if effect_id not in done))


def _by_state(selection: Selection) -> Plan:
    filters = {"state": selection.state, "kind": selection.kind}
    with transaction() as connection:
        rows = outbox.rows(connection, filters, limit=selection.limit + 1)
    return Plan(tuple(rows[: selection.limit]), more=len(rows) > selection.limit)


def _by_id(selection: Selection) -> Plan:
    eligible: list[Mapping[str, Any]] = []
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    wanted: Sequence[str] = tuple(dict.fromkeys(selection.ids))
    with transaction() as connection:
        for effect_id in wanted[: selection.limit]:
            rows = outbox.rows(connection, {"effect_id": effect_id, "kind": selection.kind}, limit=1)
            row = rows[0] if rows else None
            reason = _reason(row, selection) if row else _absent(effects.get(connection, effect_id), selection)
            if row and not reason:
                eligible.append(row)
            else:
                skipped[reason or "no such effect"].append(effect_id)
    frozen = {reason: tuple(ids) for reason, ids in skipped.items()}
    return Plan(tuple(eligible), frozen, more=len(wanted) > selection.limit)


def _reason(row: Mapping[str, Any], selection: Selection) -> str | None:
    if row["state"] == State.EXECUTING:
        return "an attempt is at work"
    if selection.state is not None and row["state"] != selection.state:
        return f"{row['state']}, not {selection.state.value}"
    return None


def _absent(effect: Mapping[str, Any] | None, selection: Selection) -> str:
    if effect is None:
        return "no such effect"
    return f"another kind than {selection.kind}" if effect["road"] else f"settled: {effect['state']}"
