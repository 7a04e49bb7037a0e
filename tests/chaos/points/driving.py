"""A relay that drives an operation as the target: killed at one of its calls, and another one takes the operation over.

The plan's own set is carried out once, what has changed since is left alone and counted, and nobody else's effect is
looked at. While the operation runs its relay makes a round every quarter of a second, so a run has more calls than a
charge has: all that it does until the operation has ended and everybody is quiet is among the points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.core.operation import Pace, Verb
from service.engine import operations
from tests.chaos.points.block import NEVER, Block, Mode
from tests.chaos.points.house import House, Run
from tests.chaos.points.stuck import Frozen, Stuck
from tests.chaos.points.subjects import SUBJECTS
from tests.flow.program import Program
from tests.flow.system import System

# A relay that has looked for operations a moment ago does not hear the bell for another one: it costs one poll.
RELAY_POLL_SECONDS = "0.5"
FACT = {Verb.REPLAY: "replayed", Verb.PARK: "parked"}
# One look at both sides of the commit: what the plan says was done, and whose journal says so.
_BOTH = """
select o.state, array_agg(i.effect_id::text) filter (where i.result = 'done') as done,
       count(*) filter (where i.result = 'skipped') as skipped,
       array(select j.effect_id::text from journal j
             where j.fact = %s and j.evidence ->> 'operation' = o.id::text) as told
from operations o join operation_items i on i.operation_id = o.id where o.id = %s group by o.id
"""
# What nobody may change of those that are none of the operation's (their dates move: time passes for everybody).
_LEFT_ALONE = """
select e.id::text as id, e.state, e.attempt, e.in_doubt, e.budget_from, e.lease_until, e.settled_at, e.outcome, e.progress,
       o.road, o.parked_reason, o.parked_at, o.deliveries,
       (select count(*) from journal j where j.effect_id = e.id) as facts
from effects e left join outbox o on o.effect_id = e.id where e.id = any(%s::uuid[]) order by e.id
"""
_SAME = "select id::text, dedupe_key, fingerprint, request, amount, currency from effects where id = any(%s::uuid[]) order by id"
_REPLAYED = """
select count(*) filter (where fact = 'replayed') as replayed, count(*) filter (where fact = %s) as told
from journal where effect_id = %s
"""


class Driving(House):
    """`hit` is one operation with a kill at the n-th call of the relay that drives it."""

    def __init__(self, system: System, block: Block, verb: Verb, *, canary: int = 0, control: str = "") -> None:
        self.found: Counter[str] = Counter()
        self._verb = verb
        self._pace = Pace(canary=canary)
        self._control = control
        self._frozen: Frozen | None = None
        # So many answers are lost here on purpose that nobody would be asked any more; that is another test's matter.
        system.settings["CIRCUIT_FAILURES"] = "0"
        super().__init__(system, block, SUBJECTS["charge"], target="relay", control=control)
        self._stuck = Stuck(system, self.glance)

    def hit(self, n: int, mode: Mode) -> Run:
        frozen = self._frozen = self._stuck.frozen(self._verb, self.programs["relay"])
        ids = [*frozen.wanted, *frozen.others]
        alone, same = self._alone(frozen), self.system.sql(_SAME, ids)
        self.intents += len(frozen.wanted)
        self._settled_down(self.programs["relay"])
        self._arm(self.programs["relay"].pid, n, mode)
        operations.start(frozen.plan.id, reason="INC-7", actor="ada@host", door="cli", pace=self._pace)
        self._hit_or(frozen.plan.id, self._over)
        run = self._ended(frozen.plan.id, 0.0)
        self._kept(frozen, f"{mode.name} call {n} ({run.label if run.fired else 'nowhere'})")
        touched = [(now, was) for now, was in zip(self._alone(frozen), alone, strict=True) if now != was]
        assert not touched, f"what is settled, at work, changed or not its own is not as it was: {touched}"
        assert self.system.sql(_SAME, ids) == same, "a key or a payload was edited"
        assert self._stuck.ends(frozen.live), "an attempt at work was taken its effect away"
        for effect_id in ids:
            assert not (wrong := self.glance.violations(effect_id)), wrong
        return replace(run, effect_id=frozen.wanted[0])

    def everything_ends(self) -> None:
        """I10, with the person who is needed for what was parked: one operation, driven to its end."""
        held = [row["id"] for row in self.system.sql("select id::text from effects where settled_at is null")]
        self._block.arm(self.programs["relay"].pid, NEVER, Mode.BEFORE)
        plan = operations.plan(Verb.REPLAY, operations.Selection(ids=tuple(held)), actor="ada@host", force=True)
        operations.start(plan.id, reason="the end", actor="ada@host", door="cli")
        self.system.settles(*held, seconds=120)
        late = [one for one in held if self.system.charged(one) != 1]
        assert not late, f"replayed in the end, and not charged once: {late}"

    # --- what a run must have kept -----------------------------------------------------------------------------

    def _done(self, effect_id: str, *, hurry: bool = False) -> bool:
        """Of an operation: it has ended, and so has each effect that it was to carry out."""
        assert self._frozen
        if self._frozen.plan.id != effect_id:
            return super()._done(effect_id, hurry=hurry)
        open_ones = [one for one in self._frozen.wanted if not super(Driving, self)._done(one, hurry=hurry)]
        [row] = self.system.sql("select state from operations where id = %s", effect_id)
        return not open_ones and row["state"] != "running"

    def _bury(self, killed: Program) -> None:
        """The moment after the kill: plan, journal and effects say the same."""
        super()._bury(killed)
        assert self._frozen
        now = self._both(self._frozen)
        done = sorted(now["done"] or ())
        assert done == sorted(now["told"]), f"the plan says {done} and the journal {now['told']}"
        if now["state"] != "running":
            self.found["killed after its end"] += 1
        elif done:
            assert now["skipped"] or self._pace.canary, "done in part, with neither a canary nor a pace"
            whole = len(done) == len(self._frozen.wanted)
            self.found["killed with all of it done" if whole else "killed with the canary done"] += 1
        else:
            self.found["killed with nothing done"] += 1

    def _kept(self, frozen: Frozen, where: str) -> None:
        told = operations.show(frozen.plan.id)
        assert (told.state, told.total, told.waiting) == ("done", frozen.plan.eligible, 0), f"{told}; {where}"
        assert (told.done, told.skipped) == (len(frozen.wanted), frozen.skipped), f"{told}; {where}"
        now = self._both(frozen)
        assert sorted(now["done"]) == sorted(now["told"]) == sorted(frozen.wanted), f"{now}; {where}"
        ended = "succeeded" if self._verb is Verb.REPLAY else "parked"
        assert told.ended == {ended: len(frozen.wanted)}, f"{told}; {where}"
        for one in frozen.wanted:
            [counts] = self.system.sql(_REPLAYED, FACT[self._verb], one)
            assert counts["replayed"] == (self._verb is Verb.REPLAY), f"{one} was replayed {counts} times; {where}"
            assert self.system.state(one) == ended, f"{self.system.effect(one)}; {where}"
        # The one in doubt had its money moved before; one that is parked has moved none.
        paid = frozen.wanted if self._verb is Verb.REPLAY else frozen.wanted[:1]
        for one in (*frozen.wanted, *frozen.others):
            assert self.system.charged(one) == (one in paid), f"I1 {one}: {self.system.charged(one)} times; {where}"

    def _both(self, frozen: Frozen) -> Mapping[str, Any]:
        return self.system.sql(_BOTH, FACT[self._verb], frozen.plan.id)[0]

    def _alone(self, frozen: Frozen) -> list[dict[str, Any]]:
        return self.system.sql(_LEFT_ALONE, list(frozen.others))

    def _start(self, name: str) -> Program:
        if name != "relay":
            return super()._start(name)
        guard = self._more if self._control else {}  # the one that is taken out is the relay's
        program = self.system.relay(POLL=RELAY_POLL_SECONDS, **guard)
        program.expected_to_run = False
        return program
