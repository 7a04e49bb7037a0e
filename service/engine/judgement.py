"""What the provider's answer means for an effect as it stands: pure, one case a line.

An unsettled effect moves forward on an outcome only. A final one never moves: an answer that does not fit is a break.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State

# Reasons of an Unknown that tell where the money is not: nothing there, or there and never confirmed.
NOT_FOUND = "not_found"
NOT_CONFIRMED = "not_confirmed"


class Finding(StrEnum):
    """How a look ended."""

    SETTLED = "settled"
    """The effect has moved forward."""
    AGREES = "agrees"
    """Our books and the provider's say the same."""
    UNDECIDED = "undecided"
    """Nothing was proven; the effect stands as it was."""
    BUSY = "busy"
    """An attempt is at work, or has been faster."""
    NO_ANSWER = "no_answer"
    """The provider does not answer now."""
    CONTRADICTION = "contradiction"
    """The two do not agree, and nothing may be overwritten: a break is open."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reason` is a machine word; `break_class` is set with a contradiction only."""

    finding: Finding
    reason: str
    break_class: str | None = None


def judge(state: State, ref: str | None, outcome: Outcome) -> Judgement:
    """Compare `outcome` with an effect that stands at `state`, known to the provider as `ref`."""
    if isinstance(outcome, Deferred):
        return Judgement(Finding.NO_ANSWER, outcome.reason)
    if isinstance(outcome, Contradiction):
        return _broken(outcome.reason)
    if state is State.SUCCEEDED:
        return _succeeded(ref, outcome)
    if state is State.FAILED:
        return _failed(outcome)
    return _unsettled(state, outcome)


def answer(outcome: Outcome) -> str:
    """The provider's answer as one word, for the journal and for people."""
    if isinstance(outcome, Unknown):
        return outcome.reason if outcome.reason in (NOT_FOUND, NOT_CONFIRMED, "cannot_be_asked") else "unknown"
    return type(outcome).__name__.lower()


def _unsettled(state: State, outcome: Outcome) -> Judgement:
    match outcome:
        case Succeeded() | Failed() if state is not State.PENDING:
            return Judgement(Finding.SETTLED, answer(outcome))
        case Awaiting(reason) if state is State.UNKNOWN:
            return Judgement(Finding.SETTLED, reason)
        case Awaiting(reason) if state is State.AWAITING:
            return Judgement(Finding.AGREES, reason)
        case Succeeded() | Failed() | Awaiting():
            # Nothing leads there from pending or parked: the attempt after this (or after a replay) adopts it.
            return Judgement(Finding.UNDECIDED, f"{answer(outcome)}_at_the_provider")
        case Unknown(reason) | Absent(reason):
            return Judgement(Finding.UNDECIDED, reason)
    raise AssertionError(outcome)


def _succeeded(ref: str | None, outcome: Outcome) -> Judgement:
    match outcome:
        case Succeeded(found) if ref in (None, found):
            return Judgement(Finding.AGREES, "succeeded")
        case Succeeded():
            return _broken("another_object")
        case Failed(code):
            # It was true once: a refund that failed days later, an intent that was canceled by hand.
            return Judgement(Finding.CONTRADICTION, code, "late_contradiction")
        case Unknown(reason) if reason != NOT_CONFIRMED:
            return Judgement(Finding.UNDECIDED, reason)
    return _broken("not_at_the_provider")


def _failed(outcome: Outcome) -> Judgement:
    match outcome:
        case Succeeded() | Awaiting():
            return _broken("the_provider_has_it")
        case Unknown(reason) if reason not in (NOT_FOUND, NOT_CONFIRMED):
            return Judgement(Finding.UNDECIDED, reason)
    return Judgement(Finding.AGREES, "failed")


def _broken(reason: str) -> Judgement:
    return Judgement(Finding.CONTRADICTION, reason, "contradiction")
