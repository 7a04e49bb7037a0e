"""The zombie: a process stands still at one of its calls, another takes over, and it wakes into a world that went on.

What is promised then (I9): the zombie writes no state. Its answer is evidence, a `late_answer` beside what its heir has
decided. What it had already let go of, it may still send: that is the same key for the keyed, and for a letter by SMTP
the one dot whose marker was committed, after which its heir sends nothing (`at_most_once`) or says that there may be two.

The moments in the database go back, the zombie's own clock does not: it believes in a lease that it has lost, which is
harder than a true pause. `by_the_clock` is the true one: it wakes knowing how late it is.
"""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import Any

import psutil
import psycopg

from tests.chaos.points.block import NEVER, Block, Mode
from tests.chaos.points.enumeration import ONE_POINT
from tests.chaos.points.glance import Glance
from tests.chaos.points.house import PATIENCE_SECONDS, House, Run
from tests.chaos.points.subjects import SUBJECTS, Accept, Subject
from tests.flow.program import Program
from tests.flow.system import System

# A transaction that stands still is ended by Postgres after 15 s (service.store.database); an heir waits for that.
LONG_PATIENCE_SECONDS = 30.0
# A statement of ours holds a row for a millisecond.
LOCKED_OUT_MILLISECONDS = 300
_keys = count(1)
_STANDING = "select state, attempt, outcome, settled_at, progress from effects where id = %s"
_LOST = "select lease_until is null or lease_until < now() as lost from effects where id = %s"


def _receipted(system: System) -> Accept:
    return lambda: system.charge(receipt=f"receipt-{next(_keys)}@example.test")


ZOMBIES = {**SUBJECTS, "receipted": Subject("receipted", _receipted)}
"""Those of the kills, and a charge whose settlement causes a letter: the one transaction with more than a statement."""


@dataclass(frozen=True)
class Pause:
    """Who stands still, and when it wakes: `midway`: its heir has begun, else: its heir has ended the effect."""

    target: str = "worker"
    midway: bool = False
    by_the_clock: bool = False


class Bystander(Glance):
    """Time passes for everybody but those whom somebody locks out: it does not wait for a zombie that stands there."""

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self._db.execute(f"set lock_timeout = {LOCKED_OUT_MILLISECONDS}")

    def leases_pass(self) -> None:
        with suppress(psycopg.errors.LockNotAvailable):
            super().leases_pass()

    def duties_pass(self) -> None:
        with suppress(psycopg.errors.LockNotAvailable):
            super().duties_pass()


class Zombies(House):
    """`stopped` is a point of this house, as `hit` is one of `House`."""

    def __init__(
        self, system: System, block: Block, subject: Subject, pause: Pause | None = None, *, control: str = ""
    ) -> None:
        self.pause = pause or Pause()
        self.found: Counter[str] = Counter()
        self.patience_seconds = PATIENCE_SECONDS
        super().__init__(system, block, subject, target=self.pause.target, control=control)
        self.glance.close()
        self.glance = Bystander(system)

    def stopped(self, n: int, mode: Mode) -> Run:
        """The target is stopped at its n-th call, and wakes after its heir has begun or ended."""
        effect_id, begun = self._accept_armed(n, mode)
        if not self._block.fired:
            self._block.disarm()
            return Run(effect_id, False, self._seen(), monotonic() - begun)
        self.stops += 1
        zombie = self.programs[self.target]
        self.system.until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        seen = self._seen()
        over = self._done(effect_id)
        held = self._inherited(zombie, effect_id)
        self._block.disarm()
        if over:  # then the heir had nothing to do, and is as cold as no other one is at its first point
            self.hit(NEVER, Mode.BEFORE)
        self._forget_deliveries()
        self._promised(effect_id, f"{mode.name} call {n} ({seen[-1]}); repeat with {ONE_POINT}={n}")
        return Run(effect_id, True, seen, monotonic() - begun, held)

    # --- the parts of it ---------------------------------------------------------------------------------------

    def _inherited(self, zombie: Program, effect_id: str) -> bool:
        """Whether the heir could not go on before the zombie did, which may stand there with a lock."""
        begun = self._progress(effect_id)
        self._lease_runs_out(effect_id)
        self.programs[self.target] = heir = self._start(self.target)
        deadline = monotonic() + self.patience_seconds

        def far_enough() -> bool:
            if self.pause.midway and self._progress(effect_id) > begun:
                return True
            return self._done(effect_id, hurry=True)

        self.system.until(
            lambda: far_enough() or monotonic() > deadline, "the heir is far enough", self.patience_seconds + 30
        )
        held = not far_enough()
        with heir.paused() if self.pause.midway else nullcontext():
            decided = self._standing(effect_id) if self._done(effect_id) else None
            zombie.signal(signal.SIGCONT)
            self._settled_down(zombie)
            assert decided in (None, self._standing(effect_id)), f"I9 {effect_id} was {decided} before a zombie woke"
        self._finish(effect_id)
        zombie.kill()
        self.system.ready(self.programs["worker"])
        return held

    def _lease_runs_out(self, effect_id: str) -> None:
        if self.pause.by_the_clock:
            self.system.until(lambda: self.system.sql(_LOST, effect_id)[0]["lost"], "the lease has run out by itself")
        # A relay stands still beside a worker that is at work, and whose lease is its own.
        self.pass_time(leases=self.target == "worker" and not self.pause.by_the_clock)

    def _progress(self, effect_id: str) -> int:
        """Grows with each claim, or where a relay stands still, with each time the row was taken for publishing."""
        if self.target == "worker":
            return int(self.system.effect(effect_id)["attempt"])
        row = self.system.outbox(effect_id)
        return int(row["deliveries"]) if row else 0

    def _standing(self, effect_id: str) -> dict[str, Any]:
        return self.system.sql(_STANDING, effect_id)[0]

    def _promised(self, effect_id: str, where: str) -> None:
        """What the oracle of all effects does not ask: how many letters a blind policy allows."""
        late = [x for x in self.system.facts(effect_id) if x == "late_answer"]
        self.found["late_answer"] += len(late)
        if not self.subject.by_smtp:
            return
        effect = self.system.effect(effect_id)
        copies = len(self.system.mail.admin(f"mailbox?recipient={effect['request']['to']}")["mail"])
        self.found[f"{effect['state']} with {copies}"] += 1
        if effect["policy"] == "at_most_once":
            assert copies <= 1, f"I1 {effect_id} was mailed {copies} times and may be once; {where}"
            assert copies or effect["state"] == "parked", f"I5 {effect_id} is {effect['state']}, not mailed; {where}"
        else:
            flagged = bool((effect["outcome"] or {}).get("possible_duplicate"))
            assert copies == 1 or flagged, f"I5 {effect_id} was mailed {copies} times, unflagged; {where}"
