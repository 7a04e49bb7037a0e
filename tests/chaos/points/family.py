"""The house whose prefork children are killed: the main process forks the next one, so a point costs a tenth of a second.

One child: its heir is a newborn, with everything to connect (cold). Two: the other one is at work at once (warm).
"""

from __future__ import annotations

from time import monotonic

import psutil

from tests.chaos.points.block import NEVER, Block, Mode
from tests.chaos.points.house import House, Run
from tests.chaos.points.labels import labels
from tests.chaos.points.subjects import Subject
from tests.flow.system import System


class Family(House):
    """`House`, with the children of the worker as its target."""

    def __init__(
        self, system: System, block: Block, subject: Subject, *, children: int = 1, control: str = ""
    ) -> None:
        self._again = (NEVER, Mode.BEFORE)
        super().__init__(system, block, subject, target="worker", control=control, pool="prefork", children=children)
        self.programs["worker"].expected_to_run = True

    def renew(self) -> None:
        """Children that have lived for one effect."""
        for child in psutil.Process(self.programs["worker"].pid).children():
            child.kill()
            child.wait(10)
        self.hit(NEVER, Mode.BEFORE)

    def pair(self, n: int, mode: Mode, m: int, again: Mode) -> Run:
        """A kill at the n-th call of a child, and one m calls later, in whichever child has taken over."""
        self._again = (m, again)
        try:
            effect_id, begun = self._accept_armed(n, mode)
        finally:
            self._again = (NEVER, Mode.BEFORE)
        if self._block.fired:
            self._bury_child(1)
            self.system.until(
                lambda: self._block.kills == 2 or (self._quiet() and self._done(effect_id, hurry=True)),
                f"{effect_id} is over, or its recovery is hit",
            )
        return self._ended(effect_id, begun)

    def _ended(self, effect_id: str, begun: float) -> Run:
        self._block.disarm()
        kills, seen = self._block.kills, self._seen()
        second = self._second() if kills == 2 else ""
        if kills:
            self._bury_child(kills)
            self._finish(effect_id)
        self.kills += kills
        return Run(effect_id, bool(kills), seen, monotonic() - begun, second=second)

    def _bury_child(self, kills: int) -> None:
        """The lease of the dead runs out. The message itself comes again: the main process has seen the death."""
        self.system.until(lambda: self._block.kills >= kills, "the kill has come")
        self.glance.leases_pass()

    def _arm(self, pid: int, n: int, mode: Mode) -> None:
        again, again_mode = self._again
        self._block.arm(pid, n, mode, child=True, again=again, again_mode=again_mode)

    def _second(self) -> str:
        return labels(self._block.calls(), self.peers)[self._block.second_at - 1]
