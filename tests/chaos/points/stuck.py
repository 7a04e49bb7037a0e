"""What an operation meets: effects that are stuck in every way, and others that are no longer as its plan saw them.

Whoever puts them aside here writes what a worker writes, by the worker's own statements; the one in doubt is a real one,
whose confirmation went out, moved the money and was never answered (W8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.core.effect import Attempt
from service.core.operation import Planned, Selection, Verb
from service.core.state import State
from service.engine import operations
from service.store import attempts
from service.store.attempts import Limits, Settlement
from service.store.database import statement
from tests.chaos.points.glance import Glance
from tests.flow.program import Program
from tests.flow.system import System

LIMITS = Limits(lease=90, budget=60, age_limit=86_400)
# A day of our time: whoever hurries moves everything open by half a minute, often, and it is not to come due by that.
LATER_SECONDS = 86_400.0
AT_ONCE = 6  # so many are put in doubt together: one after the other, that would take longer than the kills
_LATER = (
    "update effects set not_before = now() + interval '1 day' where id = any(%s::uuid[]) and settled_at is null",
    "update outbox set available_at = now() + interval '1 day' where effect_id = any(%s::uuid[])",
)
_UNCLAIMED_YET = (
    "update outbox set road = 'later', available_at = now() + interval '1 day' where effect_id = any(%s::uuid[])"
)


@dataclass(frozen=True)
class Frozen:
    """One plan: whose turn it is, who has changed since, and who was never asked."""

    plan: Planned
    wanted: tuple[str, ...]
    changed: str
    settled: str
    live: Attempt
    bystander: str

    @property
    def others(self) -> tuple[str, ...]:
        """Nobody touches these."""
        return (self.changed, self.settled, self.live.id, self.bystander)

    @property
    def skipped(self) -> dict[str, int]:
        """What the operation says of those of them that are in its set."""
        return {"changed since the plan": 1, "settled: failed": 1, "an attempt is at work": 1}


class Stuck:
    """Puts effects aside. Everything of it happens while the relay stands still, but for what is put in doubt."""

    def __init__(self, system: System, glance: Glance) -> None:
        self._system = system
        self._glance = glance
        self._doubtful: list[str] = []

    def frozen(self, verb: Verb, relay: Program) -> Frozen:
        """A plan of `verb`, whose set has changed behind its back. The relay must have nothing to do."""
        doubtful = self._in_doubt()
        with relay.paused():
            later, parked, bystander, *rest = self._system.charges(6)
            self._system.sql(_UNCLAIMED_YET, [later, parked, bystander, *rest])
            self._worker_says(_deferred, later)
            self._worker_says(_parked, parked, bystander)
            # A parked one is none that can be parked.
            wanted = (doubtful, parked, later) if verb is Verb.REPLAY else (doubtful, later)
            plan = operations.plan(verb, Selection(ids=(*wanted, *rest)), actor="ada@host")
            assert plan.ids == (*wanted, *rest), f"left out: {plan.skipped}"
            changed, settled, working = rest
            self._worker_says(_parked, changed)
            self._worker_says(_failed, settled)
            [live] = self._claimed(working)
        return Frozen(plan, wanted, changed, settled, live, bystander)

    def ends(self, live: Attempt) -> bool:
        """The attempt that was at work all the while brings its answer; whether it still owned its effect."""
        with statement() as connection:
            return attempts.settle(connection, [_failed(live)], actor="test") == {(live.id, live.number)}

    # --- the parts of it ---------------------------------------------------------------------------------------

    def _in_doubt(self) -> str:
        """One whose money has moved and of which nobody has heard; those whose second try was too quick are settled."""
        while not self._doubtful:
            self._doubtful = self._unanswered()
        return self._doubtful.pop()

    def _unanswered(self) -> list[str]:
        self._system.stripe.fault("close_after", route="confirm", times=AT_ONCE)
        ids = self._system.charges(AT_ONCE)
        self._system.until(lambda: self._put_off(ids), "each is in doubt, or settled already", 60)
        return [one for one in ids if self._system.state(one) == "unknown"]

    def _put_off(self, ids: Sequence[str]) -> bool:
        """What is in doubt comes due in a day. True when that, or their end, is true of all."""
        rows = self._system.sql(
            "select id::text, state, not_before > now() + interval '12 hours' as off from effects"
            " where id = any(%s::uuid[])",
            list(ids),
        )
        soon = [row["id"] for row in rows if row["state"] == "unknown" and not row["off"]]
        for moved in _LATER if soon else ():
            self._system.sql(moved, soon)
        return all(row["state"] == "succeeded" or (row["state"] == "unknown" and row["off"]) for row in rows)

    def _claimed(self, *ids: str) -> list[Attempt]:
        with statement() as connection:
            claimed = attempts.claim(connection, list(ids), LIMITS, actor="test")
        assert {attempt.id for attempt in claimed} == set(ids)
        return claimed

    def _worker_says(self, answer: Any, *ids: str) -> None:
        done = [answer(attempt) for attempt in self._claimed(*ids)]
        with statement() as connection:
            assert len(attempts.settle(connection, done, actor="test")) == len(ids)


def _parked(attempt: Attempt) -> Settlement:
    return Settlement(attempt.id, attempt.number, State.PARKED, "parked", in_doubt=False, parked_reason="contradiction")


def _deferred(attempt: Attempt) -> Settlement:
    return Settlement(
        attempt.id, attempt.number, State.PENDING, "deferred", in_doubt=False, after_seconds=LATER_SECONDS
    )


def _failed(attempt: Attempt) -> Settlement:
    declined = {"code": "card_declined"}
    return Settlement(attempt.id, attempt.number, State.FAILED, "failed", in_doubt=False, outcome=declined)
