"""Each guard is taken out once, in a worker or relay of its own, and the oracle must object.

A green run of the crash windows says something only if these are red without their guard.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.flow.program import Program
from tests.flow.system import System

_HERE = {"PYTHONPATH": str(Path(__file__).parent / "controls")}
_STOP, _CONTINUE = signal.SIGSTOP, signal.SIGCONT


def without(guard: str) -> dict[str, str]:
    """The environment of a program that lacks one guard."""
    return {**_HERE, "TEST_CONTROL": guard}


def broken(system: System, promise: str) -> bool:
    """Whether the oracle objects, naming the promise."""
    return any(sentence.startswith(promise) for sentence in system.oracle.violations())


def _worker(system: System, guard: str) -> Program:
    return system.worker(**without(guard))


def test_with_a_random_key_for_each_try_the_oracle_objects(system: System) -> None:
    system.relay()
    _worker(system, "random_key")
    system.settles(system.charge())
    assert broken(system, "I6")


def test_without_key_and_recovery_point_a_lost_answer_charges_twice(system: System) -> None:
    """What a plain `acks_late` task does."""
    system.stripe.fault("close_after", route="confirm")
    system.relay()
    _worker(system, "no_recovery_point")
    effect_id = system.charge()
    system.settles(effect_id)
    assert system.charged(effect_id) == 2
    assert broken(system, "I1")


def test_without_the_fence_a_zombie_writes_over_the_attempt_that_took_over(system: System) -> None:
    system.relay()
    zombie = _worker(system, "no_fence")
    with system.held("create", when="before") as first:
        system.charge()
        first.reached()
        zombie.signal(_STOP)
        first.release()
    with system.held("confirm", when="before") as second:
        system.worker()
        second.reached()
        zombie.signal(_CONTINUE)
        system.until(lambda: broken(system, "I8") or broken(system, "I9"), "the zombie has overwritten the state")
    zombie.kill()


def test_without_the_row_a_lost_message_is_a_lost_charge(system: System) -> None:
    system.start("relay-without", ["service", "relay"], **without("delete_on_publish"))
    effect_id = system.charge()
    system.until(lambda: system.wire.waiting("charge"), "the message is in the broker")
    system.wire.empty()
    assert broken(system, "I7")
    system.programs[0].kill()
    system.relay()
    system.worker()
    system.settles(system.charge())
    assert system.state(effect_id) == "pending"
    assert broken(system, "I2")
