"""Verify: ask the provider now what became of an effect, without claiming it and without sending anything.

An outcome settles what was unknown, parked or awaiting, with its follow-ups, guarded by the attempt that was looked at:
a claim in between wins, and then the answer is a journal fact only. A final effect is compared and never overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import random
from typing import Any

import structlog

from service import settings
from service.core.effect import Attempt
from service.core.errors import DependencyUnavailable, EffectNotFound, ValidationError
from service.core.outcome import Contradiction, Deferred, Outcome, Succeeded, Unknown
from service.core.state import State
from service.engine.judgement import NOT_CONFIRMED, Finding, answer, judge
from service.engine.kind import Kind
from service.engine.settle import settle
from service.engine.settlement import settlement
from service.providers.ports import Provider
from service.store import attempts, breaks, effects, outbox, verdicts
from service.store.attempts import Limits, Settlement
from service.store.database import SchemaRefused, transaction
from service.telemetry.context import bound

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look found out. `before` and `state`: how the effect stood, and how it stands now."""

    effect_id: str
    kind: str
    before: State
    state: State
    finding: Finding
    answer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """An effect as its last attempt left it: `attempt` as a provider sees it, `row` with what else we know."""

    attempt: Attempt
    row: dict[str, Any]

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.attempt.prior

    @property
    def ref(self) -> str | None:
        """The provider's id of it, recorded by a settlement or as a recovery point."""
        known = self.row["provider_ref"] or self.attempt.progress.get("payment_intent")
        return known if isinstance(known, str) else None

    def word(self, finding: Finding, said: str, reason: str, state: State | None = None) -> Verdict:
        """A verdict about it."""
        return Verdict(self.attempt.id, self.attempt.kind, self.state, state or self.state, finding, said, reason)


def verify(kind: Kind, effect_id: str, *, actor: str, seconds: float, intent: str | None = None) -> Verdict:
    """Ask and write down what it means; `intent` is a PaymentIntent that a hint named, asked for if we know none.

    Raises EffectNotFound, ValidationError (another kind), SettingsError and DependencyUnavailable (Postgres).
    """
    stands = standing(effect_id, actor=actor)
    if stands.attempt.kind != kind.name:
        raise ValidationError(f"{effect_id} is of kind {stands.attempt.kind}, not {kind.name}", field="kind")
    with bound(stands.attempt.context, effect_id=effect_id, kind=kind.name, attempt=stands.attempt.number):
        if stands.state is State.EXECUTING:
            return stands.word(Finding.BUSY, "not_asked", "an attempt is at work")
        if stands.state is State.PENDING and not stands.attempt.in_doubt:
            return stands.word(Finding.UNDECIDED, "not_asked", "nothing has been sent yet")
        provider = kind.provider()
        outcome = ask(provider, stands.attempt, seconds=seconds, intent=intent)
        return _conclude(kind, provider, stands, outcome, actor=actor, intent=intent)


def standing(effect_id: str, *, actor: str) -> Standing:
    """The effect without claiming it; an attempt whose lease is over is declared lost first. Raises EffectNotFound."""
    with transaction() as connection:
        outbox.lease_out(connection, [effect_id], actor=actor)
        attempt = attempts.standing(connection, effect_id)
        row = effects.get(connection, effect_id)
    if attempt is None or row is None:
        raise EffectNotFound(f"no effect {effect_id}")
    return Standing(attempt, row)


def ask(provider: Provider, attempt: Attempt, *, seconds: float, intent: str | None = None) -> Outcome:
    """The provider's answer, whatever goes wrong on the way; `intent` only where no recovery point is recorded."""
    hinted = intent is not None and "payment_intent" not in attempt.progress
    if hinted:
        attempt = replace(attempt, progress={**attempt.progress, "payment_intent": intent})
    try:
        outcome = provider.look_up(attempt, seconds=seconds)
    except DependencyUnavailable as error:
        return Deferred("dependency_unavailable", evidence={"detail": str(error)[:200]})
    except Exception as error:
        log.exception("provider_bug")
        return Unknown("bug", evidence={"exception": type(error).__name__})
    if hinted and isinstance(outcome, Contradiction):
        # A stranger's object that carries our id: it proves nothing about ours.
        return Unknown("hint_refused", evidence={**outcome.evidence, "hint": intent})
    return outcome


def _conclude(
    kind: Kind, provider: Provider, stands: Standing, outcome: Outcome, *, actor: str, intent: str | None
) -> Verdict:
    attempt, said = stands.attempt, answer(outcome)
    found = judge(stands.state, stands.ref, outcome)
    evidence = {**outcome.evidence, "answer": said, "reason": found.reason}
    with transaction() as connection:
        verdicts.note(connection, attempt.id, "verified", actor=actor, evidence=evidence)
        if found.break_class:
            breaks.open(connection, found.break_class, attempt.id, **about(stands, provider.name, evidence))
        elif found_intent := _unconfirmed(outcome, intent):
            verdicts.adopt(connection, attempt.id, attempt=attempt.number, intent=found_intent, actor=actor)
    if found.break_class:
        log.error("contradiction", break_class=found.break_class, state=stands.state.value, reason=found.reason)
    if found.finding is not Finding.SETTLED:
        return stands.word(found.finding, said, found.reason)
    return _settled(kind, provider, stands, outcome, actor=actor)


def _unconfirmed(outcome: Outcome, intent: str | None) -> str | None:
    """The PaymentIntent that is ours, by its own word, and moves nothing before an attempt confirms it."""
    if not isinstance(outcome, Unknown) or outcome.reason != NOT_CONFIRMED:
        return None
    found = outcome.evidence.get("payment_intent") or intent
    return found if isinstance(found, str) else None


def about(stands: Standing, provider: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a break that speaks of this effect."""
    return {
        "effect_id": stands.attempt.id,
        "provider": provider,
        "provider_ref": stands.ref,
        "amount": stands.row["amount"],
        "currency": stands.row["currency"],
        "detail": {"state": stands.state.value, **detail},
    }


def _settled(kind: Kind, provider: Provider, stands: Standing, outcome: Outcome, *, actor: str) -> Verdict:
    done, said = written(provider, stands.attempt, outcome), answer(outcome)
    follow_ups = kind.follow_up(stands.attempt, outcome) if isinstance(outcome, Succeeded) else []
    try:
        owned = settle([(done, follow_ups)], actor=actor)
    except SchemaRefused as error:
        # The answer contradicts a promise of the schema, e.g. one PaymentIntent for two effects: a person looks.
        reason = str(error.orig).partition("\n")[0][:200]
        with transaction() as connection:
            detail = about(stands, provider.name, {"answer": said, "reason": reason})
            breaks.open(connection, "contradiction", stands.attempt.id, **detail)
        log.error("contradiction", state=stands.state.value, reason="schema_refused")  # noqa: TRY400 - it has values
        return stands.word(Finding.CONTRADICTION, said, "schema_refused")
    if not owned:
        return stands.word(Finding.BUSY, said, "it moved on while we asked")
    log.info("settled", state=done.state.value, by="verify")
    return stands.word(Finding.SETTLED, said, done.fact, done.state)


def written(provider: Provider, attempt: Attempt, outcome: Outcome) -> Settlement:
    """What the outcome of a look writes; the same as if the attempt itself had learned it."""
    own = settings.load()
    limits = Limits(own.lease, own.attempt_budget, own.age_limit)
    done = settlement(
        attempt, outcome, provider=provider.name, guarantee=provider.guarantee, limits=limits, random=random
    )
    return replace(done, evidence={**done.evidence, "by": "look_up"})
