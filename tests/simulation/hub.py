"""Virtual time: the product's own blocking code runs in greenlets that sleep on one heap, so a day costs what it does.

One event after another, in an order that only the seed decides. A process that is killed ends at its next wake-up, one
that is paused wakes later and finds the world changed. `monotonic` is the clock of the process that runs, and drifts.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, ClassVar

from greenlet import getcurrent, greenlet

WALL_SECONDS = 1.8e9  # when every seed begins, as a Unix time


class Killed(BaseException):
    """This process is gone; a `BaseException`, so that nothing in the product catches it."""


class Process:
    """A worker, or whoever else runs code: it can die, be paused, and have a clock of its own."""

    __slots__ = ("dead", "frozen_until", "name", "rate", "skew_seconds")

    def __init__(self, name: str, *, rate: float = 1.0, skew_seconds: float = 0.0) -> None:
        self.name = name
        self.rate = rate
        self.skew_seconds = skew_seconds
        self.dead = False
        self.frozen_until = 0.0


class Fibre:
    """A greenlet that runs one job after another: making one costs more than most jobs."""

    __slots__ = ("args", "job", "let", "process")
    idle: ClassVar[list[Fibre]] = []

    def __init__(self) -> None:
        self.let = greenlet(self._loop)

    def _loop(self) -> None:
        while True:
            try:  # noqa: SIM105 - `suppress` costs as much as a short job
                self.job(*self.args)
            except Killed:
                pass
            Fibre.idle.append(self)
            self.let.parent.switch()


class Hub:
    """The heap of what is to happen, and the fibres that wait for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.until, self.events_max = 0.0, 0
        self.running: Fibre | None = None
        self.heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self.live: set[Fibre] = set()
        self._count = 0
        self._main = getcurrent()

    def at(self, seconds: float, call: Callable[[Any], object], argument: Any = None) -> None:
        """Call it, `seconds` from now."""
        self._count += 1
        heappush(self.heap, (self.now + seconds, self._count, call, argument))

    def spawn(self, process: Process, job: Callable[..., object], *args: Any) -> None:
        """Let the process do a job, from now on."""
        self.at(0.0, self._start, (process, job, args))

    def _start(self, given: tuple[Process, Callable[..., object], tuple[Any, ...]]) -> None:
        process, job, args = given
        self.begin(process, job, *args)

    def begin(self, process: Process, job: Callable[..., object], *args: Any) -> None:
        """Let the process do a job at once; only for who is no fibre himself."""
        fibre = Fibre.idle.pop() if Fibre.idle else Fibre()
        fibre.process, fibre.job, fibre.args = process, job, args
        self.live.add(fibre)
        self.resume(fibre)

    def resume(self, fibre: Fibre) -> None:
        """Let a fibre go on, when its process is not paused."""
        process = fibre.process
        if process.frozen_until > self.now and not process.dead:
            self.at(process.frozen_until - self.now, self.resume, fibre)
            return
        self.running = fibre
        idle = len(Fibre.idle)
        fibre.let.switch()
        self.running = None
        if len(Fibre.idle) > idle:
            self.live.discard(fibre)

    def wait(self) -> None:
        """Until somebody resumes this fibre. Raises Killed."""
        fibre = self.running
        self._main.switch()
        if fibre.process.dead:  # type: ignore[union-attr]
            raise Killed

    def skip(self, seconds: float) -> bool:
        """Go on at once when nothing else happens before: the next event would be this fibre's own."""
        until, heap = self.now + seconds, self.heap
        if (heap and heap[0][0] <= until) or until > self.until or self.events >= self.events_max:
            return False
        process = self.running.process  # type: ignore[union-attr]
        if process.frozen_until > until or process.dead:
            return False
        self.now = until
        self.events += 1
        return True

    def sleep(self, seconds: float) -> None:
        """Raises Killed."""
        if not self.skip(seconds):
            self._count += 1
            heappush(self.heap, (self.now + seconds, self._count, self.resume, self.running))
            self.wait()

    def monotonic(self) -> float:
        """The running process's clock, which drifts."""
        return self.now * self.running.process.rate if self.running else self.now

    def wall(self) -> float:
        """The running process's idea of the time of day, which may be hours off."""
        return WALL_SECONDS + self.now + (self.running.process.skew_seconds if self.running else 0.0)

    def run(self, until: float, events_max: int) -> bool:
        """Everything that happens before `until`; False when there was too much of it."""
        heap, self.until, self.events_max = self.heap, until, events_max
        while heap and heap[0][0] <= until and self.events <= events_max:
            self.now, _, call, argument = heappop(heap)
            self.events += 1
            call(argument)
        return self.events <= events_max

    def end(self) -> None:
        """Nothing goes on: whoever still waits is killed, and its greenlet is free again."""
        for fibre in list(self.live):
            fibre.process.dead = True
            self.resume(fibre)
        self.heap.clear()
        self.live.clear()
