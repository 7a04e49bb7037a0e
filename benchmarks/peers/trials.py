"""The three questions, put to every system in the same way; the answers are counted at the provider.

Nothing in a task helps: the provider holds the request, and the process that made it is hit from outside.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.peers.stage import LEASE_SECONDS, PATIENCE_SECONDS, Trial, Voidable, until

MODES = ("unkeyed", "keyed", "forgotten")
"""No provider key · the library's stable key · the same, but the provider has forgotten it meanwhile."""
KEY = "order-17"
AMOUNT = 4200
OTHER_AMOUNT = 9900
FORGETTING_SECONDS = 25 * 3600
"""Stripe keeps keys for at least 24 hours (Stripe docs, "Idempotent requests")."""
RECOVERY_SECONDS = 30.0
"""Four leases: a charge that nobody has finished by then is stuck."""
LOOK_SECONDS = 4.0
"""How long we go on looking for a second effect when everything seems done: several polls of everybody."""


@dataclass
class Result:
    """What one trial showed."""

    effects: int
    """Charges in the provider's ledger."""
    end: str
    """finished · failed · open, as the library itself says at the end."""
    word: str
    """The library's word for it."""
    seconds: float | None = None
    """From the crash to the end, if it came to one."""
    told: str = ""
    """What the caller of the second submit was told."""
    asked: int = 0
    """Requests for money that reached the provider."""
    taken_over: bool = False
    """Whether a second worker went to the provider while the first one stood still."""


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # reaped between the two questions
        return True


def crash(trial: Trial) -> Result:
    """SIGKILL between the effect and its record (W8), then the documented recovery."""
    worker, held = _held(trial, "after")
    victim = trial.caller_of_provider(worker)
    victim.kill()
    until(lambda: _is_gone(victim), "the process is dead")
    began = time.monotonic()
    trial.provider.release(held)
    if trial.provider.effects() != [AMOUNT]:
        raise Voidable("the effect had not happened, or more than once, when the process was killed")
    if trial.mode == "forgotten":
        _a_day_passes(trial)
    if victim.pid == worker.pid:
        worker.wait(PATIENCE_SECONDS)
        trial.work()
    trial.call("recover")
    _ends(trial, RECOVERY_SECONDS)
    end, word = trial.call("state", KEY)
    seconds = time.monotonic() - began if end != "open" else None
    _stays(trial)
    end, word = trial.call("state", KEY)
    return Result(len(trial.provider.effects()), end, word, seconds)


def other_amount(trial: Trial) -> Result:
    """Success, and then the same key with another amount."""
    trial.call("prepare")
    trial.work()
    trial.call("submit", KEY, AMOUNT)
    trial.until(lambda: trial.call("state", KEY)[0] == "finished", "the first charge is finished")
    if trial.mode == "forgotten":
        _a_day_passes(trial)
    try:
        told = str(trial.call("submit", KEY, OTHER_AMOUNT))
    except RuntimeError as refused:
        told = f"refused: {str(refused).split(':')[0]}"
    _stays(trial)
    _ends(trial, RECOVERY_SECONDS)
    end, word = trial.call("state", KEY)
    return Result(
        len(trial.provider.effects()), end, word, told=told, asked=trial.provider.requests(trial.system.route)
    )


def zombie(trial: Trial) -> Result:
    """The holder stands still past its lease with a request on the way, somebody else takes over, then it goes on."""
    worker, held = _held(trial, "before")
    os.killpg(worker.pid, signal.SIGSTOP)
    asked = trial.provider.requests(trial.system.route)
    trial.work()
    taken_over = True
    try:
        until(lambda: _somebody_else(trial, asked), "somebody takes over", 4 * LEASE_SECONDS)
    except Voidable:
        taken_over = False
    trial.provider.release(held)
    os.killpg(worker.pid, signal.SIGCONT)
    _ends(trial, RECOVERY_SECONDS)
    _stays(trial)
    end, word = trial.call("state", KEY)
    return Result(len(trial.provider.effects()), end, word, taken_over=taken_over)


QUESTIONS = {"crash": crash, "other_amount": other_amount, "zombie": zombie}


def _held(trial: Trial, when: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a worker and the number of a fault
    """Everything runs, the charge is asked for, and the provider holds the request that moves the money."""
    trial.call("prepare")
    worker = trial.work()
    held = trial.provider.hold(trial.system.route, when)
    trial.call("submit", KEY, AMOUNT)
    trial.until(lambda: trial.provider.holding(held), "the provider holds the request")
    return worker, held


def _somebody_else(trial: Trial, asked: int) -> bool:
    """A second request for the money, or an end without one."""
    return trial.provider.requests(trial.system.route) > asked or trial.call("state", KEY)[0] != "open"


def _a_day_passes(trial: Trial) -> None:
    """At the provider only; the clients believe that no time has passed, so that none of them is warned."""
    trial.provider.admin("clock", {"advance_seconds": FORGETTING_SECONDS})


def _ends(trial: Trial, seconds: float) -> None:
    """Wait for an end in the library's own words; none is an answer too."""
    with suppress(Voidable):
        until(lambda: trial.call("state", KEY)[0] != "open", "it has ended", seconds)


def _stays(trial: Trial) -> None:
    """Until the ledger has not changed for a while."""
    seen, since = trial.provider.effects(), time.monotonic()
    while time.monotonic() - since < LOOK_SECONDS:
        time.sleep(0.2)
        if (now := trial.provider.effects()) != seen:
            seen, since = now, time.monotonic()
