"""The replay tool as a target: effects that are stuck, the command killed at one of its calls, and then run again.

What it has started by then the relay carries out without it; what it has not started does nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from service.core.effect import Attempt
from service.core.state import State
from service.store import attempts
from service.store.attempts import Limits, Settlement
from service.store.database import make_engine
from tests.chaos.points.block import Block, Mode
from tests.chaos.points.doors import Door
from tests.chaos.points.house import Run
from tests.flow.program import Program
from tests.flow.system import System

SIGKILLED = -signal.SIGKILL
DONE, NOTHING_MATCHED, PARTLY_DONE = 0, 3, 4  # exit codes, as every --help lists them
LATER_SECONDS = 3600.0
# What a replay may change, and the words of whoever replayed.
_REPLAYED = """
select e.id::text as id, e.state, e.attempt, o.road, o.available_at, e.not_before,
       (select coalesce(jsonb_agg(j.evidence ->> 'reason' order by j.id), '[]') from journal j
        where j.effect_id = e.id and j.fact = 'replayed') as reasons
from effects e left join outbox o on o.effect_id = e.id where e.id::text = any(%s) order by e.id
"""
_AN_HOUR_LATER = (
    "update effects set not_before = now() + interval '1 hour' where id = %s and settled_at is null",
    "update outbox set available_at = now() + interval '1 hour' where effect_id = %s",
)


class Tool(Door):
    """`counterfoil outbox replay` on three that are stuck: in doubt after a lost answer, parked, and due in an hour."""

    def __init__(self, system: System, block: Block) -> None:
        super().__init__(system, block, "tool")
        self._settled_before: list[str] = []

    def renew(self) -> None:
        """It is a new process each time."""

    def hit(self, n: int, mode: Mode) -> Run:
        stuck = self._stuck()
        self.intents += 1
        begun, before = monotonic(), self._standing(stuck)
        first, again = (f"INC-{self.intents} {which}" for which in ("first", "again"))
        tool = self._replay(stuck, first)
        self._block.arm(tool.pid, n, mode)
        code = tool.wait()
        self._block.disarm()
        fired, seen = bool(self._block.fired), self._seen()
        if fired:
            assert code == SIGKILLED, f"the tool was not killed, it ended with {code}\n{tool.text()[-3000:]}"
            self.kills += 1
            self._nothing_loose()
            self._driven()
            self._all_or_nothing(before, self._standing(stuck), first)
            self._told(self._replay(stuck, again), stuck, again)
        else:
            assert self._told(tool, stuck, first) == len(stuck)
        for effect_id in stuck:
            self._finish(effect_id)
        self._said(stuck, first, again)
        self._settled_before = [stuck[0]]
        return Run(stuck[0], fired, seen, monotonic() - begun)

    # --- what is stuck -----------------------------------------------------------------------------------------

    def _stuck(self) -> list[str]:
        """With the relay standing still, so that nobody takes what is being put aside."""
        doubtful = self.system.charge()
        with self.system.held("confirm", doubtful, when="after") as barrier:
            barrier.reached()
            with self.programs["relay"].paused():
                self.system.reaches(doubtful, "unknown")  # W8: the money has moved, nobody has heard of it
                for statement in _AN_HOUR_LATER:
                    self.system.sql(statement, doubtful)
                parked, later = self.system.charges(2)
                _put_aside(self.system.database, parked, later)
        return [doubtful, parked, later]

    def _replay(self, stuck: Sequence[str], reason: str) -> Program:
        ids = [word for effect_id in (*stuck, *self._settled_before) for word in ("--id", effect_id)]
        line = ["service", "outbox", "replay", *ids, "--reason", reason, "--execute", "--yes", "--json"]
        return self.system.start("caller-replay", line)

    # --- what it has done --------------------------------------------------------------------------------------

    def _driven(self) -> None:
        """Whatever was started comes to its end."""
        open_ones = "select id from operations where state = 'running'"
        self.system.until(lambda: not self.system.sql(open_ones), "the relay has carried out what was started")

    def _standing(self, stuck: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.system.sql(_REPLAYED, list(stuck))}

    def _all_or_nothing(self, before: Mapping[str, Any], after: Mapping[str, Any], reason: str) -> None:
        """Started or not: it stands in the journal of all, or of none, and then nothing has happened to any."""
        replayed = {effect_id for effect_id, row in after.items() if reason in row["reasons"]}
        assert replayed in (set(), set(after)), f"replayed in part: {replayed} of {set(after)}"
        self.found["started, then killed" if replayed else "killed, nothing done"] += 1
        assert replayed or before == after, f"the journal says nothing, and {before} is now {after}"

    def _told(self, tool: Program, stuck: Sequence[str], reason: str) -> int:
        """Run to its end, it has done what it says: as many as the journal has with its reason."""
        code = tool.wait()
        [told] = [line for line in tool.lines() if "eligible" in line]
        in_journal = sum(reason in row["reasons"] for row in self._standing(stuck).values())
        assert told.get("replayed", 0) == in_journal, f"it says {told}, the journal says {in_journal}"
        assert told["eligible"] + sum(told["skipped"].values()) == len(stuck) + len(self._settled_before), told
        expected = {DONE} if not told["skipped"] and in_journal else {PARTLY_DONE, NOTHING_MATCHED}
        assert code in expected, f"{code} after {told}"
        self.found["run again, nothing left to do" if not in_journal else "run to its end"] += 1
        return in_journal

    def _said(self, stuck: Sequence[str], *reasons: str) -> None:
        for effect_id, row in self._standing(stuck).items():
            assert row["state"] == "succeeded", f"{effect_id} is {row}"
            assert set(row["reasons"]) <= set(reasons), f"{effect_id} was replayed by somebody else: {row}"
            assert row["reasons"], f"{effect_id} went on and nobody says why"
            assert len(row["reasons"]) == len(set(row["reasons"])), f"{effect_id} was replayed twice in one run: {row}"


def _put_aside(database: str, parked: str, later: str) -> None:
    """What a worker writes of an effect that needs a person, and of one that comes again in an hour, neither sent."""
    engine = make_engine(database, pooled=False)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            limits = Limits(lease=90, budget=60, age_limit=86_400)
            claimed = attempts.claim(connection, [parked, later], limits, actor="test")
            done = [_aside(attempt, attempt.id == parked) for attempt in claimed]
            assert len(attempts.settle(connection, done, actor="test")) == len(done)
    finally:
        engine.dispose()


def _aside(attempt: Attempt, parked: bool) -> Settlement:
    state = State.PARKED if parked else State.PENDING
    why: dict[str, Any] = {"parked_reason": "contradiction"} if parked else {"after_seconds": LATER_SECONDS}
    return Settlement(attempt.id, attempt.number, state, "parked" if parked else "deferred", in_doubt=False, **why)
