"""A second object at the provider that names the same effect: if it has moved money, that is a charge too many.

It can only come from outside the one path (a forgotten key, a copied database, a person with a terminal). It is never
adopted and never undone here: a break is opened, an effect that would still be confirmed is parked, and somebody
decides about a refund.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from service.core.outcome import Succeeded
from service.engine.judgement import Finding, answer
from service.engine.kind import Kind
from service.engine.verify import Verdict, about, ask, standing
from service.store import breaks, verdicts
from service.store.database import transaction

log = structlog.get_logger(__name__)


def look(kind: Kind, effect_id: str, intent: str, *, actor: str, seconds: float) -> Verdict:
    """Ask for `intent`, which is not the one that the effect knows. Raises what `verify` raises."""
    stands = standing(effect_id, actor=actor)
    provider = kind.provider()
    progress = {name: value for name, value in stands.attempt.progress.items() if name != "payment_intent"}
    outcome = ask(provider, replace(stands.attempt, progress=progress), seconds=seconds, intent=intent)
    said = answer(outcome)
    evidence = {**outcome.evidence, "answer": said, "second_object": intent}
    doubled = isinstance(outcome, Succeeded) and outcome.ref == intent
    with transaction() as connection:
        verdicts.note(connection, effect_id, "verified", actor=actor, evidence=evidence)
        if doubled:
            breaks.open(connection, "duplicate_effect", effect_id, **about(stands, provider.name, evidence))
            number = stands.attempt.number
            verdicts.park(connection, effect_id, attempt=number, reason="second_object", actor=actor)
    if doubled:
        log.error("contradiction", break_class="duplicate_effect", effect_id=effect_id)
        return stands.word(Finding.CONTRADICTION, said, "second_object")
    return stands.word(Finding.NO_ANSWER if said == "deferred" else Finding.UNDECIDED, said, "second_object")
