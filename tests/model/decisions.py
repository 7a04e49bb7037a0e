"""Every decision the model takes is the product's own: the transition table, the settlement, the hold, the classifiers.

Each is asked once for each combination of its few inputs and remembered, so that walking millions of states costs
what a look into a dictionary costs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from time import monotonic

from service.core.effect import Attempt, Guarantee, HorizonPassed, LeaseLost, Policy
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import FINAL as _FINAL
from service.core.state import TRANSITIONS, State
from service.engine.hold import Hold
from service.engine.settlement import settlement
from service.providers.http1 import Answer, Headers
from service.providers.mail import resend, smtp
from service.providers.stripe.answers import Expected, ExpectedRefund, Next, Reply, Sent, Step, classify
from service.store.attempts import Limits

LEGAL = frozenset((a.value, b.value) for a, targets in TRANSITIONS.items() for b in targets)
"""The product's table, by value: a plain string is compared and hashed faster than a member of an enum."""
FINAL = frozenset(state.value for state in _FINAL)
SENDS_MAX = smtp.SENDS_MAX
_LIMITS = Limits(lease=90.0, budget=10**9, age_limit=10.0**12)  # spending a budget is an action of its own
_HORIZON_SECONDS = 20 * 3600.0

DECLINED, REFUSED, FRONT, SILENCE, ERROR = "declined", "refused", "front", "silence", "error"
DONE, WAITS, CREATED, ERROR_AGAIN = "done", "waits", "created", "error again"
"""What the provider may answer: `refused` is an unstored 400, `front` a 429, `error` a 500 and `error again` the same
out of the key's memory, `silence` none at all."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of effect. `asked`: how far a look-up can be trusted, `exact`, `fallible`, or not at all."""

    name: str
    guarantee: Guarantee
    policy: Policy = Policy.AT_MOST_ONCE
    steps: int = 1
    asked: str | None = None

    @property
    def keyed(self) -> bool:
        return self.guarantee is Guarantee.KEYED

    @property
    def copies_max(self) -> int:
        """How many times the provider may do it: once, or what the policy of a blind one says."""
        return SENDS_MAX if not self.keyed and self.policy is Policy.AT_LEAST_ONCE else 1


CHARGE = Kind("charge", Guarantee.KEYED, steps=2, asked="fallible")
REFUND = Kind("refund", Guarantee.KEYED, asked="exact")
AGAIN = Kind("refund sent again when absent", Guarantee.KEYED, Policy.AT_LEAST_ONCE, asked="exact")
RESEND = Kind("keyed e-mail", Guarantee.KEYED)
ONCE = Kind("blind e-mail, at most once", Guarantee.BLIND)
TWICE = Kind("blind e-mail, at least once", Guarantee.BLIND, Policy.AT_LEAST_ONCE)

_ATTEMPT = Attempt(
    id="0198c0de-0000-7000-8000-000000000001",
    tenant="default",
    kind="model",
    number=1,
    prior=State.PENDING,
    in_doubt=False,
    sent_age_seconds=0.0,
    tries=1,
    waited_seconds=0.0,
    request={},
    progress={},
    policy=Policy.AT_MOST_ONCE,
    dedupe_key="model",
    context={},
)
_MARKS = {"amount": 100, "currency": "eur", "livemode": False, "metadata": {"effect_id": _ATTEMPT.id}}
_EXPECTED = Expected(_ATTEMPT.id, 100, "eur", livemode=False)
_EXPECTED_REFUND = ExpectedRefund(_ATTEMPT.id, 100, "eur", "pi_1")


@cache
def may_send(*, doubt: bool, past_horizon: bool, lease_over: bool, keyed: bool) -> str:
    """What the hold says right before the first byte: `go`, `lease lost` or `horizon passed`."""
    age = 2 * _HORIZON_SECONDS if past_horizon else 0.0
    attempt = replace(_ATTEMPT, in_doubt=doubt, sent_age_seconds=age)
    since = monotonic() - (2 * _LIMITS.lease if lease_over else 0.0)
    hold = Hold(attempt, claimed_at=since, lease=_LIMITS.lease, deadline=20.0, record=lambda _a, _p: True)
    try:
        hold.guard(horizon_seconds=_HORIZON_SECONDS if keyed else None)
    except LeaseLost:
        return "lease lost"
    except HorizonPassed:
        return "horizon passed"
    return "go"


_OUTCOMES: dict[str, Outcome] = {}


def name_of(outcome: Outcome) -> str:
    """An outcome as one word of a state. Evidence and texts are left out: what means the same is the same state."""
    bare: Outcome
    match outcome:
        case Succeeded():
            name, bare = "succeeded", Succeeded("ref")
        case Failed():
            name, bare = "failed", Failed("failed", "")
        case Awaiting(reason):
            name, bare = f"awaiting: {reason}", Awaiting(reason)
        case Absent(reason, harmless):
            name, bare = f"absent: {reason}{', harmless' if harmless else ''}", Absent(reason, harmless)
        case Deferred(reason) | Unknown(reason) | Contradiction(reason):
            name, bare = f"{type(outcome).__name__.lower()}: {reason}", type(outcome)(reason)
    return name if _OUTCOMES.setdefault(name, bare) == bare else f"{name}?"


LEASE_LOST = name_of(Deferred("lease_lost"))
KEY_EXPIRED = name_of(Unknown("key_expired"))
BLIND_UNKNOWN = name_of(Unknown("blind_unknown"))
NO_ANSWER = name_of(Unknown("no_answer_timeout"))
NOT_FOUND = name_of(Unknown("not_found"))
MISMATCH = name_of(Contradiction("idempotency_error"))
SUCCEEDED = name_of(Succeeded("ref"))
ABSENT = name_of(Absent("absent"))
# A charge without a recorded PaymentIntent was never confirmed, so another one can do no harm.
ABSENT_HARMLESS = name_of(Absent("absent", harmless=True))


@cache
def settled(kind: Kind, prior: str, doubt: int, told: str) -> tuple[str, int]:
    """What the product's settlement writes: the state, and whether the effect stays in doubt."""
    attempt = replace(_ATTEMPT, prior=State(prior), in_doubt=bool(doubt), policy=kind.policy)
    done = settlement(
        attempt, _OUTCOMES[told], provider="model", guarantee=kind.guarantee, limits=_LIMITS, random=lambda: 0.5
    )
    return done.state.value, int(done.in_doubt)


@cache
def learned(kind: Kind, step: str, answer: str, doubt: int) -> str:
    """What an answer proves, by the product's own classifiers; `step` is one of Stripe's, or `send`."""
    if kind is RESEND:
        return name_of(_resend(answer, bool(doubt)))
    if not kind.keyed:
        return name_of(_smtp(answer, bool(doubt)))
    outcome = _stripe(Step.REFUND if step == "send" else Step(step), answer, bool(doubt))
    # Looking for what a repeated 500 has left is the model's own action; this is what stands when it finds nothing.
    return name_of(Unknown("status_500") if isinstance(outcome, Next) else outcome)


_INTENTS = {DONE: "succeeded", WAITS: "processing", CREATED: "requires_confirmation"}
_STATUS = {DECLINED: 402, REFUSED: 400, FRONT: 429, ERROR: 500, ERROR_AGAIN: 500}


def _stripe(step: Step, answer: str, doubt: bool) -> Outcome | Next:
    error = {"type": "card_error" if answer == DECLINED else "invalid_request_error", "code": "model"}
    status = _INTENTS.get(answer)
    if step is Step.RETRIEVE and answer == DECLINED:
        status = "requires_payment_method"  # a declined intent says so itself, in a 200
    named = {"id": "re_1", "payment_intent": "pi_1"} if step is Step.REFUND else {"id": "pi_1"}
    reply = Reply(
        step,
        Sent.MAYBE if answer == SILENCE else Sent.ANSWERED,
        doubt,
        "timeout" if answer == SILENCE else "",
        status=200 if status else _STATUS.get(answer),
        body={**_MARKS, **named, "status": status, "last_payment_error": error} if status else None,
        error=None if status else error,
        replayed=answer == ERROR_AGAIN,
    )
    return classify(reply, _EXPECTED_REFUND if step is Step.REFUND else _EXPECTED)


def _resend(answer: str, doubt: bool) -> Outcome:
    if answer == SILENCE:
        return Unknown("no_answer_timeout")
    body = {"id": "ref"} if answer == DONE else {"name": "rate_limit_exceeded" if answer == FRONT else "model"}
    status = {DONE: 200, REFUSED: 422, FRONT: 429, ERROR: 500, ERROR_AGAIN: 500}[answer]
    return resend.classify(Answer(status, Headers(), json.dumps(body).encode(), reusable=True), in_doubt=doubt)


def _smtp(answer: str, doubt: bool) -> Outcome:
    """`doubt`: an earlier dot had no reply. The phases of SMTP are tested on the wire; these are its last replies."""
    if answer == DECLINED:
        return Unknown("blind_unknown") if doubt else Failed("smtp_550", "")
    return {DONE: Succeeded("ref"), FRONT: Deferred("smtp_451"), SILENCE: Unknown("no_answer_timeout")}[answer]
