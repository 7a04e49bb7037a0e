"""A circuit breaker for each provider: one that is away is asked now and then, by one effect, not by all of them.

Only what says nothing about the effect itself counts as a failure: no connection, no answer, a 5xx that is new, 429.
A decline or a 400 is an answer, and any answer closes the circuit (Stripe: Error handling; Rate limits). What is
counted stands in the database, so all workers of the installation know the same; nothing that is written here is
needed for any promise, so a database that lacks it stops no effect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any, TypeVar

import structlog

from service.core.outcome import Absent, Awaiting, Deferred, Failed, Outcome, Succeeded, Unknown
from service.settings import Settings
from service.store import circuits
from service.store.circuits import Circuit
from service.store.database import statement

T = TypeVar("T")

LOOK_SECONDS = 0.5  # how old a worker's knowledge may be: what it claims meanwhile costs an attempt each, not a promise
AGAIN_SECONDS = 1.0  # between two tries at limits that cannot be read or written: meanwhile nothing is limited

log = structlog.get_logger(__name__)


class Sign(Enum):
    """What an outcome says about its provider."""

    ANSWERS = "answers"
    FAILS = "fails"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Way:
    """Whether effects of a kind may be claimed: all, none, or one to find out."""

    open: bool
    probe: bool = False
    why: str = ""


FREE = Way(open=True)


def sign(outcome: Outcome) -> Sign:  # noqa: PLR0911 - one case a line of the docs
    """What `outcome` says about the provider and not about the effect."""
    status, reason = outcome.evidence.get("status"), getattr(outcome, "reason", "")
    if isinstance(outcome, Succeeded | Awaiting | Absent):
        return Sign.ANSWERS
    if reason.endswith("no_time_left"):
        return Sign.NOTHING  # our own deadline
    if reason.startswith(("not_sent_", "no_answer", "look_up_no_answer", "not_smtp")):
        return Sign.FAILS
    if "phase" in outcome.evidence:
        return _mail(outcome, status)
    if isinstance(outcome, Deferred) and reason in ("rate_limited", "quota_exceeded"):
        # Another request holds the very same object: that is about the object (Stripe: Rate limits, object lock).
        return Sign.NOTHING if outcome.evidence.get("code") == "lock_timeout" else Sign.FAILS
    if not isinstance(status, int) or status in (401, 403):
        return Sign.NOTHING  # nothing was asked, or the key is refused: a person's business, kind by kind
    if status >= 500:
        # One that is replayed was stored under this effect's key, while all others are served.
        return Sign.NOTHING if outcome.evidence.get("replayed") else Sign.FAILS
    return Sign.ANSWERS


def _mail(outcome: Outcome, status: Any) -> Sign:
    """SMTP: 421 closes the channel for everybody (RFC 5321 §4.2.3), other 4xx speak of one recipient or letter."""
    if status == 421:
        return Sign.FAILS
    return Sign.ANSWERS if isinstance(outcome, Failed) and status else Sign.NOTHING


class Breaker:
    """One per worker process; safe to call from threads. Raises nothing: without its tables every way is free."""

    def __init__(self, settings: Settings) -> None:
        self._threshold = settings.circuit_failures
        self._probe_seconds = settings.lease
        self._seen: Mapping[str, Circuit] = {}
        self._looked_at = float("-inf")
        self._probing: set[str] = set()
        self._turn = threading.Lock()
        self.quietly = Quietly()

    def way(self, provider: str, kind: str) -> Way:
        """Whether effects of this kind may be claimed now; one that asks first after `probe_at` may probe."""
        if not self._threshold:
            return FREE
        found = self._circuits().get(provider)
        if found is None or not found.holds(kind):
            return FREE
        why = f"the circuit of {provider} is open: {found.last_error}"
        return Way(open=False, probe=self._wins(found), why=why)

    def _circuits(self) -> Mapping[str, Circuit]:
        with self._turn:
            if monotonic() > self._looked_at + LOOK_SECONDS:
                found: list[Circuit] = self.quietly(_standing, [])
                self._seen = {circuit.provider: circuit for circuit in found}
                self._looked_at = monotonic()
            return self._seen

    def _wins(self, found: Circuit) -> bool:
        if (found.probe_seconds or 0.0) > LOOK_SECONDS:
            return False

        def work() -> bool:
            with statement() as connection:
                return circuits.probe(connection, found.provider, seconds=self._probe_seconds)

        return self.quietly(work, otherwise=False)

    def probes(self, effect_id: str) -> None:
        """What comes of this effect's attempt is the answer that everybody waits for."""
        with self._turn:
            self._probing.add(effect_id)

    def idle(self, provider: str, effect_id: str) -> None:
        """The probe was not claimed after all (settled, or somebody else's): let another one try."""
        if self._was_probe(effect_id):
            self._again(provider)

    def learned(self, provider: str, kind: str, effect_id: str, outcome: Outcome) -> None:
        """Count what an attempt says about its provider. Called when it is settled: this must not delay that (W9)."""
        if not self._threshold:
            return
        probe, found = self._was_probe(effect_id), sign(outcome)
        if found is Sign.FAILS:
            self._failed(provider, kind, outcome, probe=probe)
        elif found is Sign.ANSWERS and self._in_trouble(provider):
            self._answered(provider)
        elif probe:
            self._again(provider)

    def _was_probe(self, effect_id: str) -> bool:
        with self._turn:
            was = effect_id in self._probing
            self._probing.discard(effect_id)
            return was

    def _in_trouble(self, provider: str) -> bool:
        found = self._circuits().get(provider)
        return found is not None and (found.open or found.failures > 0)

    def _failed(self, provider: str, kind: str, outcome: Outcome, *, probe: bool) -> None:
        reason = str(getattr(outcome, "reason", ""))
        asked = outcome.after_seconds if isinstance(outcome, Deferred | Unknown) else None

        def work() -> bool:
            with statement() as connection:
                return circuits.failed(
                    connection, provider, kind, reason, threshold=self._threshold, probe=probe, asked=asked or 0.0
                )

        if self.quietly(work, otherwise=False):
            log.error("circuit_open", provider=provider, reason=reason, failures=self._threshold)
        self._look_again()

    def _answered(self, provider: str) -> None:
        def work() -> float | None:
            with statement() as connection:
                return circuits.answered(connection, provider)

        seconds = self.quietly(work, None)
        if seconds is not None:
            log.warning("circuit_closed", provider=provider, seconds=round(seconds, 1))
        self._look_again()

    def _again(self, provider: str) -> None:
        def work() -> None:
            with statement() as connection:
                circuits.probe_again(connection, provider)

        self.quietly(work, None)

    def _look_again(self) -> None:
        with self._turn:
            self._looked_at = float("-inf")


def _standing() -> list[Circuit]:
    with statement() as connection:
        return circuits.standing(connection)


class Quietly:
    """Work that no effect depends on: when it fails, that is said once, and left alone for a while."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._failing = False

    def __call__(self, work: Callable[[], T], otherwise: T) -> T:
        """What `work` returns, or `otherwise`."""
        if monotonic() < self._until:
            return otherwise
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the limits, effects must flow
            self._until = monotonic() + AGAIN_SECONDS
            if not self._failing:
                log.warning("limits_away", error=str(error).partition("\n")[0][:200])
            self._failing = True
            return otherwise
        if self._failing:
            self._failing = False
            log.warning("limits_back")
        return found
