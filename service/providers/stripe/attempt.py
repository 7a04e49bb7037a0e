"""What every attempt at Stripe has: a doubt, a deadline, keys, notes for the attempts after it, and two spaced misses.

A miss is a complete look-up that found nothing. Alone it proves nothing (Stripe: Search is no read-after-write). Two of
them prove absence when the horizon was over before the first, so that nothing sent under the key was still allowed to
go out, and when between them lies an hour and the longest call, so that whatever went out has landed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from time import monotonic
from typing import Any

from service.core.effect import Attempt, Guarantee, Lease
from service.core.keys import step_key
from service.core.outcome import Absent, Contradiction, Deferred, Failed, Outcome, Unknown
from service.core.state import State
from service.providers.stripe.answers import STORED_500_SECONDS, Step
from service.providers.stripe.api import Call, StripeApi

# Stripe keeps keys for at least 24 hours and then forgets them without a word (Stripe: Idempotent requests); four
# hours of margin are for clocks and for the time a request may lie in a queue.
HORIZON_SECONDS = 20 * 3600.0
# Searches lag a minute, an hour in an outage (Stripe: Search); the longest call is added to it.
ABSENCE_SPACING_SECONDS = 3600.0
MISSED_AT, STORED_500, PLACE = "missed_at_age_seconds", "stored_500", "look_up"
"""Notes: the effect's age at the first of two misses; that the key repeats a 500, so that sending it tells nothing;
where a long look-up goes on, and the effect's age when it began."""


class StripeProvider:
    """The part of a provider that all kinds of effect at Stripe share."""

    name = "stripe"
    guarantee = Guarantee.KEYED

    def __init__(self, api: StripeApi, *, livemode: bool, deadline_seconds: float) -> None:
        self.api = api
        self.livemode = livemode
        self.deadline_seconds = deadline_seconds


class StripeAttempt:
    """One attempt at one effect."""

    harmless = False
    """Whether sending again could move no money even if a proof of absence were wrong."""
    visible_seconds = inf
    """For how long what was sent can be found by looking; what is older cannot be missed."""

    def __init__(self, provider: StripeProvider, attempt: Attempt, lease: Lease) -> None:
        self.api = provider.api
        self.attempt = attempt
        self.lease = lease
        self.livemode = provider.livemode
        self._deadline_seconds = provider.deadline_seconds
        self._notes: dict[str, Any] = dict(attempt.progress)
        self._began = monotonic()

    @property
    def doubt(self) -> bool:
        """Whether an earlier attempt may have sent what this one is about to send."""
        return self.attempt.in_doubt or self.attempt.prior is not State.PENDING

    @property
    def age(self) -> float:
        """Seconds since the first byte may have gone out, by the database's clock."""
        return self.attempt.sent_age_seconds + (monotonic() - self._began)

    def noted(self, name: str) -> Any:
        """What an earlier attempt, or this one, wrote down."""
        return self._notes.get(name)

    def note(self, **facts: Any) -> None:
        """Commit a recovery point (W11). Raises LeaseLost."""
        self.lease.record(facts)
        self._notes |= facts

    def begin_anew(self) -> None:
        """A fresh send after a proof of absence: a later doubt is about this send, and needs two misses of its own."""
        stale = {name: None for name in (MISSED_AT, STORED_500, PLACE) if self.noted(name) is not None}
        if stale and not self.doubt:
            self.note(**stale)

    def guard_key(self) -> None:
        """Before a send that only its key protects. Raises HorizonPassed, LeaseLost."""
        self.lease.guard(horizon_seconds=HORIZON_SECONDS)

    def key(self, step: Step) -> str:
        """The step's idempotency key: one string for ever (I6)."""
        return step_key(self.attempt.id, step.value)

    def seconds(self) -> float:
        """What one call may take."""
        return min(self._deadline_seconds, self.lease.seconds_left())

    def call(self, before_send: Callable[[], None] | None = None) -> Call:
        """A call that the lease allows; `before_send` when more than the lease is to be asked."""
        return Call(self.seconds(), before_send or self.lease.guard)

    def inconclusive(self, found: Deferred, before: Outcome | None, place: Mapping[str, Any] | None = None) -> Outcome:
        """A look-up that came to no end: the state before the claim, unless this attempt has sent something itself."""
        if place is not None and place != self.noted(PLACE):
            self.note(**{PLACE: {**place, "began": self._look_began}})
        return before if isinstance(before, Unknown) else found

    @property
    def _look_began(self) -> float:
        """The effect's age when the look-up began that this attempt goes on with, or begins."""
        place = self.noted(PLACE)
        return float(place["began"]) if place else self.attempt.sent_age_seconds

    def missed(self, before: Outcome | None = None) -> Outcome:
        """Everything was looked through and nothing was found; `before` is what this attempt's own send learned."""
        age, first, began = self.age, self.noted(MISSED_AT), self._look_began
        if self.noted(PLACE) is not None:
            self.note(**{PLACE: None})  # the next look begins at the beginning
        if age < HORIZON_SECONDS:
            if before is not None and self.noted(STORED_500) is None:
                self.note(**{STORED_500: True})
            return before or Unknown("not_found", {"age_seconds": round(age)}, STORED_500_SECONDS)
        spacing = ABSENCE_SPACING_SECONDS + self._deadline_seconds
        if not isinstance(first, int | float):
            if age > self.visible_seconds:
                return Unknown("key_expired", {"age_seconds": round(age)})
            self.note(**{MISSED_AT: age})
            return Unknown("not_found", {"age_seconds": round(age), "miss": 1}, spacing)
        # The second look must have begun, not only ended, that long after the first.
        waited = began - first
        if waited < spacing:
            return Unknown("not_found", {"age_seconds": round(age), "miss": 1}, spacing - waited)
        evidence = {"age_seconds": round(age), "first_miss_age_seconds": round(first)}
        return Absent("absent", self.harmless, evidence)


def intent_of(attempt: Attempt, *, settled: bool) -> str | Failed | Contradiction:
    """The PaymentIntent of the charge that this effect acts upon, or why nothing can be done to it.

    `settled`: nothing is sent before the charge is final, so nothing was sent for a failed one. Otherwise it may have
    failed since, and an attempt in doubt has to look.
    """
    charge = attempt.concerned
    if charge is None:
        return Contradiction("no_charge")
    doubt = attempt.in_doubt or attempt.prior is not State.PENDING
    if charge.state is State.FAILED and (settled or not doubt or charge.ref is None):
        detail = {"code": "charge_failed", "charge": charge.id}
        return Failed("charge_failed", "the charge failed: there is no money to act upon", detail)
    if charge.ref is None:
        return Contradiction("charge_without_reference", {"charge": charge.id})
    return charge.ref
