"""The house whose prefork children are killed: the main process forks the next one, so a point costs a fifth of a second.

Who is hit and who takes over is the `Kin`: the heir of an only child is a newborn that has everything to connect, a
sibling is there at once, and a newborn may be hit itself.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

import psutil

from tests.chaos.points.block import NEVER, Block, Mode
from tests.chaos.points.house import House, Run
from tests.chaos.points.labels import labels
from tests.chaos.points.subjects import Subject
from tests.flow.program import Program
from tests.flow.system import System


@dataclass(frozen=True)
class Kin:
    """`children` at work; `newborn`: each effect is begun by one that has done nothing before."""

    children: int = 1
    newborn: bool = False


KIN = {"only child": Kin(), "newborn": Kin(newborn=True), "siblings": Kin(children=2)}


class Family(House):
    """`House`, with the children of the worker as its target."""

    def __init__(
        self, system: System, block: Block, subject: Subject, *, kin: str = "only child", control: str = ""
    ) -> None:
        self.kin = KIN[kin]
        self._again = (NEVER, Mode.BEFORE)
        super().__init__(
            system, block, subject, target="worker", control=control, pool="prefork", children=self.kin.children
        )
        self.programs["worker"].expected_to_run = True

    def renew(self) -> None:
        """Children that have lived for one effect."""
        self._bear()
        self.hit(NEVER, Mode.BEFORE)

    def pair(self, n: int, mode: Mode, m: int, again: Mode) -> Run:
        """A kill at the n-th call of a child, and one m calls later, in whichever child has taken over."""
        self._again = (m, again)
        try:
            effect_id, begun = self._accept_armed(n, mode)
        finally:
            self._again = (NEVER, Mode.BEFORE)
        if self._block.fired:
            self.glance.leases_pass()
            self.system.until(
                lambda: self._block.kills == 2 or (self._quiet() and self._done(effect_id, hurry=True)),
                f"{effect_id} is over, or its recovery is hit",
            )
        return self._ended(effect_id, begun)

    def _settled_down(self, program: Program) -> None:
        if self.kin.newborn:
            self._bear()
        super()._settled_down(program)

    def _bear(self) -> None:
        """Other children than now."""
        main = psutil.Process(self.programs["worker"].pid)
        old = main.children()
        self._arm(main.pid, NEVER, Mode.BEFORE)
        for child in old:
            # One that was hit at its very last call may be buried by its main process at this moment.
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.system.until(
            lambda: len(set(main.children()) - set(old)) == self.kin.children and not set(main.children()) & set(old),
            "the main process has new children",
        )
        self.system.until(lambda: self._waiting() >= {child.pid for child in main.children()}, "they wait for orders")

    def _waiting(self) -> set[int]:
        """The children that read their next order, of those that have called anything since the block was armed."""
        last = {call.pid: call for call in self._block.calls()}
        return {pid for pid, call in last.items() if call.pipe and call.under_way}

    def _quiet(self) -> bool:
        """On a loaded machine nothing for a while is not yet nothing: a child that is alive must wait for orders."""
        if not super()._quiet():
            return False
        called = {call.pid for call in self._block.calls()}
        return all(pid in self._waiting() or not psutil.pid_exists(pid) for pid in called)

    def _ended(self, effect_id: str, begun: float) -> Run:
        self._block.disarm()
        kills, seen, under_way = self._block.kills, self._seen(), self._under_way()
        second = labels(self._block.calls(), self.peers)[self._block.second_at - 1] if kills == 2 else ""
        if kills:
            # The lease of the dead runs out; the message comes again by itself, for the main process has seen the death.
            self.glance.leases_pass()
            self._finish(effect_id)
        self.kills += kills
        return Run(effect_id, bool(kills), seen, monotonic() - begun, under_way=under_way, second=second)

    def _finish(self, effect_id: str) -> None:
        self.system.until(lambda: self._done(effect_id, hurry=True), f"{effect_id} is settled or parked")

    def _arm(self, pid: int, n: int, mode: Mode) -> None:
        again, again_mode = self._again
        self._block.arm(pid, n, mode, child=True, again=again, again_mode=again_mode)
