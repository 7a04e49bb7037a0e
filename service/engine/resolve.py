"""Resolve: a person settles an unknown or parked effect, with a reason and evidence, after the provider was asked.

The provider's word outranks the person's: where it has an outcome that is what gets written, and where it contradicts
the person nothing is, unless the person insists, which opens a break. Back to `pending` leads only proof: nothing was
sent, or absence is on record. Everything is one commit, guarded by the state and the attempt that were looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import structlog

from service import settings
from service.core.effect import Order
from service.core.errors import ValidationError
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.core.text import refuse_unstorable_text
from service.engine.judgement import NOT_CONFIRMED, answer
from service.engine.kind import Kind
from service.engine.verify import Standing, about, ask, standing, written
from service.providers.ports import Provider
from service.store import attempts, bell, breaks, effects, verdicts
from service.store.database import transaction
from service.store.verdicts import Quiet

RESOLVABLE = (State.UNKNOWN, State.PARKED)
TEXT_LENGTH_MAX = 2_000  # a sentence and a link; more belongs into the incident
# What was sent last may still land after a look that found nothing, and then "failed" would be untrue for ever (I5):
# searches lag up to an hour (Stripe: Search), and an attempt sends only while its lease lasts.
QUIET_SECONDS = 3600.0
# What was answered with a 500 may be rolled forward by Stripe itself, within hours (Stripe: Advanced error handling);
# a day is the life of the key that repeats it.
REPAIR_SECONDS = 24 * 3600.0
# How an attempt that has proven absence says so when its effect is parked.
ABSENT_REASONS = frozenset({"absent"})

log = structlog.get_logger(__name__)


class As(StrEnum):
    """What a person may declare."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PENDING = "pending"
    """Provably not done: send it (again) under the same keys."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants written. `ref` is the provider's id; `against_provider` insists when it says otherwise."""

    as_: As
    reason: str
    evidence: str
    ref: str | None = None
    against_provider: bool = False


class Ending(StrEnum):
    """How a wish ended."""

    RESOLVED = "resolved"
    REFUSED = "refused"
    """The effect, the provider or missing proof forbids it; nothing was written."""
    NO_ANSWER = "no_answer"
    """The provider could not be asked now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of it. `answer`: what the provider said. `caused`: effects that the success asked for."""

    effect_id: str
    before: State
    state: State
    ending: Ending
    answer: str
    why: str
    caused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """One wish about one effect, with what is known."""

    kind: Kind
    provider: Provider
    stands: Standing
    wish: Wish
    actor: str
    outcome: Outcome = field(default_factory=lambda: Unknown("not_asked"))

    def word(self, ending: Ending, why: str, state: State | None = None, caused: tuple[str, ...] = ()) -> Resolution:
        stands = self.stands
        return Resolution(
            stands.attempt.id, stands.state, state or stands.state, ending, answer(self.outcome), why, caused
        )


def resolve(kind: Kind, effect_id: str, wish: Wish, *, actor: str, seconds: float) -> Resolution:
    """Ask the provider, then write what the person declares, or say why not.

    Raises ValidationError, EffectNotFound, SettingsError (no provider to ask) and DependencyUnavailable (Postgres).
    """
    check(wish)
    stands = standing(effect_id, actor=actor)
    if stands.attempt.kind != kind.name:
        raise ValidationError(f"{effect_id} is of kind {stands.attempt.kind}, not {kind.name}", field="kind")
    case = _Case(kind, kind.provider(), stands, wish, actor)
    refusal = _unfit(stands, wish)
    if refusal:
        return case.word(Ending.REFUSED, refusal)
    with transaction() as connection:
        quiet = verdicts.quiet(connection, effect_id)  # before the look, so that the look comes after it
    asked = ask(case.provider, stands.attempt, seconds=seconds, intent=_intent(wish))
    case = replace(case, outcome=asked)
    objection = objects(wish, stands.ref, asked) or _too_soon(stands, wish, asked, quiet)
    if objection and not wish.against_provider:
        return case.word(Ending.NO_ANSWER if isinstance(asked, Deferred) else Ending.REFUSED, objection)
    return _write(case, objection)


def check(wish: Wish) -> None:
    """Raises ValidationError: what a person must say, and what nobody may."""
    for name, value in (("reason", wish.reason), ("evidence", wish.evidence)):
        if not value.strip():
            raise ValidationError(f"--{name} is needed; it is kept in the journal", field=name)
        if len(value) > TEXT_LENGTH_MAX:
            raise ValidationError(f"--{name} is longer than {TEXT_LENGTH_MAX} characters", field=name)
        refuse_unstorable_text({name: value}, field=name)
    if wish.ref is not None and wish.as_ is not As.SUCCEEDED:
        raise ValidationError("a reference belongs to --as succeeded", field="ref")
    if wish.ref is not None and not (wish.ref.isascii() and wish.ref.isprintable() and 0 < len(wish.ref) <= 255):
        raise ValidationError("--ref is the provider's id, like pi_…", field="ref")
    if wish.as_ is As.PENDING and wish.against_provider:
        raise ValidationError("nobody may send again against the provider's word", field="against_provider")


def _unfit(stands: Standing, wish: Wish) -> str | None:
    """Why the effect as it stands may not be resolved so."""
    if stands.state is State.EXECUTING:
        return "an attempt is at work"
    if stands.state not in RESOLVABLE:
        return f"it is {stands.state.value}; only unknown and parked effects can be resolved"
    if wish.as_ is As.PENDING and not _provably_not_done(stands):
        return "it may have been sent and its absence is not proven; the same keys ask again by replaying it"
    return None


def _provably_not_done(stands: Standing) -> bool:
    """Nothing is in doubt, or the look-ups of an attempt have proven absence."""
    return not stands.row["in_doubt"] or stands.row["parked_reason"] in ABSENT_REASONS


def objects(wish: Wish, ref: str | None, outcome: Outcome) -> str | None:
    """What the provider has against the wish; None when it agrees or cannot tell."""
    match outcome:
        case Deferred(reason):
            return f"the provider does not answer ({reason}); ask again later"
        case Contradiction(reason):
            return f"the provider's object is not what this effect asked for ({reason})"
        case Succeeded() | Failed() | Awaiting():
            return _against_outcome(wish, outcome)
    return _against_silence(wish, ref, outcome)


def _too_soon(stands: Standing, wish: Wish, outcome: Outcome, quiet: Quiet) -> str | None:
    """Silence proves nothing about what is still on its way: a person may not say "failed" to it yet."""
    if wish.as_ is not As.FAILED or isinstance(outcome, Failed) or _provably_not_done(stands):
        return None
    left = (REPAIR_SECONDS if quiet.server_error else QUIET_SECONDS) + settings.load().lease - quiet.seconds
    if left <= 0:
        return None
    return f"what was sent last may still land; look again in {math.ceil(left / 60)} min"


def _against_outcome(wish: Wish, outcome: Succeeded | Failed | Awaiting) -> str | None:
    match outcome:
        case Awaiting(reason):
            return f"the provider has not finished with it ({reason})"
        case Failed(code):
            return None if wish.as_ is As.FAILED else f"the provider says it failed ({code})"
        case Succeeded(found):
            agrees = wish.as_ is As.SUCCEEDED and wish.ref in (None, found)
            return None if agrees else f"the provider has it as {found}"


def _against_silence(wish: Wish, ref: str | None, outcome: Outcome) -> str | None:
    if wish.as_ is not As.SUCCEEDED:
        return None
    if isinstance(outcome, Absent):
        return "the provider does not have it"
    reason = outcome.reason if isinstance(outcome, Unknown) else ""
    if reason == "hint_refused":
        return f"{wish.ref} is not this effect's"
    if reason == NOT_CONFIRMED:
        return "the provider has it prepared and never carried it out"
    if wish.ref and ref and wish.ref != ref:
        return f"this effect is known to the provider as {ref}"
    return None


def _intent(wish: Wish) -> str | None:
    return wish.ref if wish.ref and wish.ref.startswith("pi_") else None


def _write(case: _Case, objection: str | None) -> Resolution:
    stands, wish, attempt = case.stands, case.wish, case.stands.attempt
    facts = {
        "as": wish.as_.value,
        "reason": wish.reason.strip(),
        "evidence": wish.evidence.strip(),
        "answer": answer(case.outcome),
        **({"ref": wish.ref} if wish.ref else {}),
        **({"against_provider": objection} if objection else {}),
    }
    orders: list[Order] = []
    with transaction() as connection:
        if not verdicts.hold(connection, attempt.id, attempt=attempt.number, state=stands.state):
            return case.word(Ending.REFUSED, "it moved on while we asked; look again")
        verdicts.note(connection, attempt.id, "resolved", actor=case.actor, evidence=facts)
        if wish.as_ is As.PENDING:
            verdicts.release(connection, attempt.id, attempt=attempt.number)
        else:
            outcome = _outcome(case, objection, facts)
            orders = case.kind.follow_up(attempt, outcome) if isinstance(outcome, Succeeded) else []
            done = written(case.provider, attempt, outcome)
            if not done.provider_ref:
                done = replace(done, provider_ref=None)
            attempts.settle(connection, [replace(done, evidence={"by": "resolve"})], actor=case.actor)
            if orders:
                effects.accept(connection, orders, actor=case.actor)
        if objection:
            breaks.open(connection, "against_provider", attempt.id, **about(stands, case.provider.name, facts))
    bell.ring()
    log.warning("resolved", effect_id=attempt.id, state=wish.as_.value, against_provider=bool(objection))
    caused = tuple(order.id for order in orders)
    return case.word(Ending.RESOLVED, objection or "", State(wish.as_.value), caused)


def _outcome(case: _Case, objection: str | None, facts: Mapping[str, Any]) -> Succeeded | Failed:
    """The provider's own outcome where it has one that fits; else the person's, marked as such."""
    wish = case.wish
    if objection is None and isinstance(case.outcome, Succeeded | Failed):
        return case.outcome
    if wish.as_ is As.FAILED:
        return Failed("resolved_as_failed", "a person settled this effect as failed", {"resolved": True})
    ref = wish.ref or case.stands.ref or ""
    known = {"payment_intent": ref} if ref.startswith("pi_") else {}
    return Succeeded(ref, {**known, "resolved": True}, {"reason": facts["reason"]})
