"""The hold: an attempt's lease as its provider sees it; it refuses to send when the answer could come too late."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from service.core.effect import Attempt, HorizonPassed, LeaseLost

# Between the last moment a call may end and the end of the lease: room for the settling commit, and for a clock that
# runs a little faster here than in the database.
MARGIN_SECONDS = 1.0
# Less than this is no time for an answer: better to let the effect come due again, with nothing sent.
ENOUGH_SECONDS = 0.25


class Hold:
    """Implements `core.effect.Lease`. `claimed_at` is this process's monotonic clock *before* the claim was sent, so
    that the lease is over here at least as early as it is in the database.
    """

    def __init__(
        self,
        attempt: Attempt,
        *,
        claimed_at: float,
        lease: float,
        deadline: float,
        record: Callable[[Attempt, Mapping[str, Any]], bool],
    ) -> None:
        self._attempt = attempt
        self._claimed_at = claimed_at
        self._lease = lease
        self._deadline = deadline
        self._ends_at = claimed_at + lease - MARGIN_SECONDS
        self._record = record

    def seconds_left(self) -> float:
        """What one call may take: the provider's deadline, or less when the lease ends sooner."""
        return max(0.0, min(self._deadline, self._ends_at - monotonic()))

    def guard(self, *, horizon_seconds: float | None = None) -> None:
        """See `core.effect.Lease.guard`. A paused process (I9) wakes up here and finds that it may not send."""
        if self.seconds_left() < ENOUGH_SECONDS:
            raise LeaseLost
        age = self._attempt.sent_age_seconds + (monotonic() - self._claimed_at)
        if horizon_seconds is not None and self._attempt.in_doubt and age >= horizon_seconds:
            raise HorizonPassed

    def record(self, progress: Mapping[str, Any]) -> None:
        """See `core.effect.Lease.record`. W11: after this commit, the next attempt goes on from here."""
        asked_at = monotonic()
        if not self._record(self._attempt, progress):
            raise LeaseLost
        self._ends_at = asked_at + self._lease - MARGIN_SECONDS
