"""The storm: five blows at processes that are in the middle of something, each told in one line."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.cli.demo.stage import WORKERS, Stage

DROPPED_ANSWERS = 6
HELD_ANSWERS = 3
GATHER_SECONDS = 3.0  # how long a blow waits for its victim to be in the middle of something

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Blow:
    """What to do when a share (0 to 1) of the requests has been answered."""

    at: float
    strike: Callable[[Stage, random.Random, Tell], None]


def kill_worker(stage: Stage, choose: random.Random, tell: Tell) -> None:
    """W8, made exact: the provider has charged and holds its answer back; then its worker gets SIGKILL."""
    gate = {"route": stage.paying_route, "times": HELD_ANSWERS, "action": "barrier", "when": "after"}
    fault = stage.stripe.post("/_fake/faults", gate)["id"]
    _until(lambda: stage.holding(fault) > 0)
    name = stage.worker_in_the_middle() or choose.choice(WORKERS)
    stage.programs.kill(name)
    stage.stripe.post("/_fake/release", {"id": fault})
    tell(f"kill -9 {name}: its card is charged, its answer is not read")


def drop_answers(stage: Stage, choose: random.Random, tell: Tell) -> None:  # noqa: ARG001 - every blow is called alike
    """W8: the provider charges, then the connection is cut instead of an answer."""
    gate = {"route": stage.paying_route, "times": DROPPED_ANSWERS, "action": "close_after"}
    stage.stripe.post("/_fake/faults", gate)
    tell(f"the provider charges {DROPPED_ANSWERS} cards and drops its answers")


def kill_relay(stage: Stage, choose: random.Random, tell: Tell) -> None:  # noqa: ARG001
    """W3: with the broker frozen the relay can claim rows and not publish them; there it is killed."""
    broker = stage.servers.valkey.pid
    if broker is None:
        return
    os.kill(broker, signal.SIGSTOP)
    try:
        time.sleep(0.7)  # rows go on arriving, the relay claims them and waits for the broker's word
        stage.programs.kill("relay")
    finally:
        os.kill(broker, signal.SIGCONT)
    tell("kill -9 the relay between claim and publish")


def empty_broker(stage: Stage, choose: random.Random, tell: Tell) -> None:  # noqa: ARG001
    """W4: every message in the broker is gone."""
    stage.servers.valkey.flush()
    tell("empty the broker: every message in it is gone")


def restart_postgres(stage: Stage, choose: random.Random, tell: Tell) -> None:  # noqa: ARG001
    """Every connection is cut, every open transaction lost; what was committed is there again."""
    stage.servers.postgres.kill()
    stage.servers.postgres.start()
    tell("kill -9 Postgres and start it again")


BLOWS = [
    Blow(0.15, kill_worker),
    Blow(0.30, drop_answers),
    Blow(0.45, kill_relay),
    Blow(0.60, empty_broker),
    Blow(0.75, restart_postgres),
    Blow(0.90, kill_worker),
]


class Storm:
    """Strikes when it is time."""

    def __init__(self, stage: Stage, choose: random.Random, tell: Tell, blows: list[Blow] | None = None) -> None:
        self._stage = stage
        self._choose = choose
        self._tell = tell
        self._left = list(BLOWS if blows is None else blows)
        self.struck = 0

    def look(self, share: float) -> None:
        """Strike what is due at this share of the requests."""
        while self._left and self._left[0].at <= share:
            self._left.pop(0).strike(self._stage, self._choose, self._tell)
            self.struck += 1


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + GATHER_SECONDS
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
