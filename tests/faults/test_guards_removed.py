"""Each guard is taken out, one at a time, and the provider's ledger shows the harm: no guard is there for show.

The patches live here; the product has no switch for any of them. The rows are green with the guard in
(test_fault_matrix.py). Guards that need a killed process, a broken broker or another schema are taken out in
tests/flow/test_negative_controls.py, tests/chaos and tests/migrations; guarantees.md lists them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from uuid import uuid4

import pytest

from service.core.effect import Policy
from service.core.outcome import Absent, Deferred, Failed
from service.core.state import State
from service.engine import execute
from service.providers.stripe import answers as stripe_answers
from service.providers.stripe import attempt as stripe_attempt
from service.store import attempts, links
from tests.faults.stage import SUBJECTS, End, Stage
from tests.faults.test_fault_matrix import STORIES

Play = Callable[[Stage], End]


def play(subject: str, fault: str, hours: float) -> Play:
    return lambda stage: stage.play(SUBJECTS[subject], fault, hours)[1]


def doubled(end: End) -> bool:
    """I1: the provider has it more than once."""
    return end.done > 1


def untrue(end: End) -> bool:
    """I5: we say that it failed, or that it is absent, and the provider has it."""
    return end.done > 0 and (end.state == "failed" or end.reason == "absent")


# --- the guards, each taken out ----------------------------------------------------------------------------------


def another_key_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: the key of a step is one string for ever."""
    monkeypatch.setattr(stripe_attempt, "step_key", lambda effect_id, step: f"{effect_id}-{uuid4()}:{step}")


def no_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the horizon nothing is sent under a key that may be forgotten."""
    monkeypatch.setattr(stripe_attempt, "HORIZON_SECONDS", inf)


def silence_is_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not classified is unknown."""
    monkeypatch.setattr(stripe_answers, "unsettled", lambda _, reason, *__: Failed(reason, "no answer"))


def _settling(monkeypatch: pytest.MonkeyPatch, forget: Callable[[object], bool]) -> None:
    honest = execute.settlement

    def forgetful(attempt, outcome, **known):
        done = honest(attempt, outcome, **known)
        return replace(done, state=State.PENDING, in_doubt=False) if forget(outcome) and done.after_seconds else done

    monkeypatch.setattr(execute, "settlement", forgetful)


def doubt_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown outcome stays in doubt until an own answer."""
    _settling(monkeypatch, lambda _: True)


def a_front_answer_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A front answer brings back the state before the claim, doubt and all."""
    _settling(monkeypatch, lambda outcome: isinstance(outcome, Deferred))


def one_miss_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absence needs two spaced misses."""
    honest = stripe_attempt.StripeAttempt.missed

    def hasty(self, before=None):
        if self.age >= stripe_attempt.HORIZON_SECONDS:
            return Absent("absent", self.harmless)
        return honest(self, before)

    monkeypatch.setattr(stripe_attempt.StripeAttempt, "missed", hasty)


def every_policy_is_generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blind letter that must not double is never sent again."""
    monkeypatch.setattr(attempts, "Policy", lambda _: Policy.AT_LEAST_ONCE)


GUARDS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Play, Callable[[End], bool]]] = {
    "one key for ever": (another_key_each_time, play("refund", "F7", 0), doubled),
    "the horizon": (no_horizon, play("refund", "F7", 25), doubled),
    "unclassified is unknown": (silence_is_failure, play("refund", "F7", 0), untrue),
    "doubt outlives the state": (doubt_is_forgotten, play("refund", "F7", 25), doubled),
    "a front answer restores": (a_front_answer_resets, STORIES["front_answer_after_doubt"][0], doubled),
    "two spaced misses": (one_miss_is_enough, STORIES["late_repair"][0], untrue),
    "the letter's policy": (every_policy_is_generous, play("blind_once", "F7", 0), doubled),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_without_the_guard_the_ledger_shows_the_harm(stage: Stage, monkeypatch, guard):
    take_out, story, harm = GUARDS[guard]
    assert not harm(story(stage))
    with monkeypatch.context() as patched:
        take_out(patched)
        assert harm(story(stage))


def test_without_the_order_a_refund_runs_before_its_charge(stage: Stage, monkeypatch):
    """The claim asks whether the concerned effect is ready; without that the refund meets a charge without money."""

    def refund_of_a_waiting_charge() -> str:
        charge = stage.accept(SUBJECTS["confirm"])
        request = {**SUBJECTS["refund"].request, "charge": charge}
        effect_id = stage.accept(replace(SUBJECTS["refund"], request=request))
        return stage.perform(effect_id, SUBJECTS["refund"])

    assert refund_of_a_waiting_charge() == "pending"
    claim = str(attempts._CLAIM)
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_CLAIM", attempts.text(claim.replace(links.READY, "true")))
        assert refund_of_a_waiting_charge() == "parked"
