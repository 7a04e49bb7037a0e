"""A relay and a worker of which one is armed, a supervisor that starts again what was killed, and time that passes.

Nothing waits for a lease to run out: while its holder is dead (or stopped), the moments in the database go back. To
everybody alive that is the same as waiting, and a thousand points fit into minutes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psutil

from tests.chaos.points.block import NEVER, Block, Call, Mode
from tests.chaos.points.glance import Glance
from tests.chaos.points.labels import labels
from tests.chaos.points.subjects import Subject
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.wires import ValkeyWire

HURRY = Path(__file__).with_name("hurry")
CONTROLS = Path(__file__).resolve().parents[2] / "flow" / "controls"
# No call for so long, and the process has done what it had to do: an answer of a server beside us takes a millisecond,
# and a relay that has heard nothing for 0.05 s asks when the next row comes due.
QUIET_SECONDS = {"worker": 0.06, "relay": 0.15}
HURRY_SECONDS = 0.25
# How long an heir may take for what it can do at once, unless the zombie holds a lock.
PATIENCE_SECONDS = 4.0
# A relay that nobody rings looks at the outbox; each look would be a dozen points that are always the same.
RELAY_POLL_SECONDS = "2"


@dataclass(frozen=True)
class Run:
    """One effect with somebody armed: who was hit, what it had called by then, and where it was hit."""

    effect_id: str
    fired: bool
    labels: tuple[str, ...]
    seconds: float
    waited_for_zombie: bool = False
    under_way: frozenset[str] = frozenset()
    """Calls that had not returned when nothing was left to do."""
    second: str = ""
    """Where the recovery was hit as well, empty if it was not."""

    @property
    def label(self) -> str:
        """The point that was hit."""
        return self.labels[-1]


class House:
    """`target` is what is armed: worker (its main process, whatever the pool) or relay."""

    def __init__(
        self,
        system: System,
        block: Block,
        subject: Subject,
        *,
        target: str,
        control: str = "",
        pool: str = "solo",
        children: int = 1,
    ) -> None:
        self.system = system
        self.subject = subject
        self.target = target
        self.glance = Glance(system)
        self.kills = self.stops = self.intents = 0
        self._pool = (pool, children)
        self._hurried_at = self._last_call_at = 0.0
        self._last_count = -1
        self._block = block
        self._more = {"PYTHONPATH": f"{HURRY}{os.pathsep}{CONTROLS}"} | ({"TEST_CONTROL": control} if control else {})
        self.programs = {name: self._start(name) for name in ("relay", "worker")}
        self.peers = _peers(system)
        system.ready(self.programs["worker"])

    # --- one point ---------------------------------------------------------------------------------------------

    def warm_up(self) -> Run:
        """One effect with nothing broken: warm connections, and the calls as they are undisturbed."""
        self.hit(NEVER, Mode.BEFORE)
        return self.hit(NEVER, Mode.BEFORE)

    def renew(self) -> None:
        """A target that has lived for one effect, like one that was started after a kill."""
        self.programs[self.target].kill()
        self.programs[self.target] = self._start(self.target)
        self.system.ready(self.programs["worker"])
        self.hit(NEVER, Mode.BEFORE)

    def hit(self, n: int, mode: Mode) -> Run:
        """One effect with a kill at the n-th call of the target; back when it is settled or parked."""
        effect_id, begun = self._accept_armed(n, mode)
        return self._ended(effect_id, begun)

    def hit_twice(self, n: int, mode: Mode, m: int, again: Mode) -> bool:
        """A kill at the n-th call, and one at the m-th of the process started in its place; whether both came."""
        return bool(self.pair(n, mode, m, again).second)

    def pair(self, n: int, mode: Mode, m: int, again: Mode) -> Run:
        """The same, with what was hit."""
        effect_id, begun = self._accept_armed(n, mode)
        if not self._block.fired:
            return self._ended(effect_id, begun)
        first = self._seen()
        self._bury(self.programs[self.target])
        self._reborn(m, again)
        self._hit_or(effect_id, self._done)
        heir = self._ended(effect_id, begun)
        return replace(heir, fired=True, labels=first, second=heir.label if heir.fired else "")

    def stop_until_done(self, n: int, mode: Mode) -> Run:
        """A worker stopped at its n-th call; it wakes when another one has taken over and ended the effect."""
        return self._stop(n, mode, midway=False)

    def stop_until_midway(self, n: int, mode: Mode) -> Run:
        """The same; it wakes while the other one has claimed the effect and not ended it."""
        return self._stop(n, mode, midway=True)

    def _stop(self, n: int, mode: Mode, *, midway: bool) -> Run:
        zombie = self.programs["worker"]
        effect_id, begun = self._accept_armed(n, mode)
        if not self._block.fired:
            self._block.disarm()
            return Run(effect_id, False, self._seen(), monotonic() - begun)
        self.stops += 1
        self.system.until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        seen = self._seen()
        held = self._taken_over(zombie, effect_id, midway=midway)
        self._block.disarm()
        self._forget_deliveries()
        return Run(effect_id, True, seen, monotonic() - begun, held)

    # --- the parts of it ---------------------------------------------------------------------------------------

    def _accept_armed(self, n: int, mode: Mode) -> tuple[str, float]:
        """Accept the effect with the target armed; back when it is hit, or when nothing is left to be hit."""
        accept = self.subject.prepare(self.system)
        begun = monotonic()
        self.intents += 1
        armed = self.programs[self.target]
        self._settled_down(armed)
        self._arm(armed.pid, n, mode)
        effect_id = accept()
        self._hit_or(effect_id, self._over)
        return effect_id, begun

    def _arm(self, pid: int, n: int, mode: Mode) -> None:
        self._block.arm(pid, n, mode)

    def _hit_or(self, effect_id: str, over: Callable[[str], bool]) -> None:
        self.system.until(lambda: self._block.fired or over(effect_id), f"{effect_id} is over, or a point is hit")

    def _ended(self, effect_id: str, begun: float) -> Run:
        """After a kill: what was killed is started again, and the effect comes to its end."""
        self._block.disarm()
        fired, seen = bool(self._block.fired), self._seen()
        if fired:
            self._bury(self.programs[self.target])
            self.programs[self.target] = self._start(self.target)
            self._finish(effect_id)
            self._forget_deliveries()
        return Run(effect_id, fired, seen, monotonic() - begun, under_way=self._under_way())

    def _reborn(self, n: int, mode: Mode) -> None:
        """A new process, armed before it has made its first call: it imports for longer than arming takes."""
        self.programs[self.target] = born = self._start(self.target)
        self._block.arm(born.pid, n, mode)
        self._last_count, self._last_call_at = -1, monotonic()

    def _taken_over(self, zombie: Program, effect_id: str, *, midway: bool) -> bool:
        """Whether the heir could not go on before the zombie did, which may stand there with a lock."""
        stolen = self.system.effect(effect_id)["attempt"]
        self.pass_time(leases=True)
        self.programs["worker"] = heir = self._start("worker")
        deadline = monotonic() + PATIENCE_SECONDS

        def far_enough() -> bool:
            return (midway and self.system.effect(effect_id)["attempt"] > stolen) or self._done(effect_id, hurry=True)

        self.system.until(lambda: far_enough() or monotonic() > deadline, "the heir is far enough")
        held = not far_enough()
        with heir.paused() if midway else nullcontext():
            zombie.signal(signal.SIGCONT)
            self._settled_down(zombie)
        self._finish(effect_id)
        zombie.kill()
        self.system.ready(heir)
        return held

    def _bury(self, killed: Program) -> None:
        """It was our kill and nothing else; then its lease runs out."""
        self._block.disarm()
        code = killed.wait()
        assert code == -signal.SIGKILL, f"{killed.name} was not killed, it ended with {code}\n{killed.text()[-3000:]}"
        self.kills += 1
        # A relay dies beside a worker that is at work: only the duty to publish again grows old then.
        self.pass_time(leases=self.target == "worker")

    def _forget_deliveries(self) -> None:
        """What a dead worker had in hands: Valkey would bring it after minutes (RabbitMQ has done so at once).

        Its row in the outbox has come due again, so nothing is waited for.
        """
        if isinstance(self.system.wire, ValkeyWire):
            self.system.wire.empty()

    def _finish(self, effect_id: str) -> None:
        self.system.until(lambda: self._done(effect_id, hurry=True), f"{effect_id} is settled or parked")
        self.system.ready(self.programs["worker"])

    def _start(self, name: str) -> Program:
        if name == "relay":
            program = self.system.relay(POLL=RELAY_POLL_SECONDS)
        else:
            pool, children = self._pool
            own = {**self.subject.settings(self.system), **self._more}
            program = self.system.worker(pool, concurrency=children, **own)
        program.expected_to_run = name != self.target
        return program

    def _done(self, effect_id: str, *, hurry: bool = False) -> bool:
        """Settled or parked, with the outbox saying the same."""
        if self.glance.done(effect_id):
            return True
        if hurry and monotonic() > self._hurried_at + HURRY_SECONDS:
            self._hurried_at = monotonic()
            self.glance.duties_pass()
        return False

    def _over(self, effect_id: str) -> bool:
        return self._quiet() and self._done(effect_id) and self.system.wire.idle()

    def _quiet(self) -> bool:
        """Whether the armed process has called nothing for a while."""
        count, now = self._block.count, monotonic()
        if count != self._last_count:
            self._last_count, self._last_call_at = count, now
        return now > self._last_call_at + QUIET_SECONDS[self.target]

    def _settled_down(self, program: Program) -> None:
        """Wait until the process does nothing; what it still says about the last effect is not of the next one."""
        self._last_count, self._last_call_at = -1, monotonic()
        if not self._block.fired or program.pid != self._block.fired:
            self._arm(program.pid, NEVER, Mode.BEFORE)
        self.system.until(lambda: program.code is not None or self._quiet(), f"{program.name} is quiet")
        self._last_count, self._last_call_at = -1, monotonic()

    def pass_time(self, *, leases: bool) -> None:
        """Past every backoff and redelivery; `leases`: and past the lease of whoever holds an effect."""
        if leases:
            self.glance.leases_pass()
        self.glance.duties_pass()

    def _under_way(self) -> frozenset[str]:
        calls = self._block.calls()
        return frozenset(label for call, label in zip(calls, labels(calls, self.peers), strict=True) if call.under_way)

    def _seen(self) -> tuple[str, ...]:
        calls: list[Call] = self._block.calls()
        fired_at = self._block.fired_at
        return tuple(labels(calls, self.peers))[: fired_at or None]


def _peers(system: System) -> Mapping[int, str]:
    ports = {
        "postgres": urlsplit(system.database).port,
        "broker": urlsplit(system.wire.url).port,
        "stripe": urlsplit(str(system.stripe.address["url"])).port,
        "mail": urlsplit(str(system.mail.address["http_url"])).port,
        "smtp": urlsplit(str(system.mail.address["smtp_url"])).port,
    }
    return {port: name for name, port in ports.items() if port}
