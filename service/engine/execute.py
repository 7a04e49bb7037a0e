"""Execute: claim → perform → settle, each in its own commit; safe to call again for every redelivery.

    claim    one commit: a fresh attempt number, a lease, `first_sent_at`           (W5 before it, W6 after it)
    perform  no transaction is open; the provider reports an `Outcome`              (W7, W8; W11 between two steps)
    settle   one commit: the outcome if the attempt still owns its effect, with its follow-ups   (W9 before, W10 after)

An effect that is settled, not due, or held by a live attempt is not claimed: a duplicate message does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import random
from time import monotonic, sleep
from typing import Any

import structlog

from service.core.effect import Attempt, LeaseLost, Order
from service.core.errors import DependencyUnavailable, Quarantined, SettingsError
from service.core.outcome import Deferred, Outcome, Succeeded, Unknown
from service.core.state import FINAL, State
from service.engine.combine import Combiner
from service.engine.hold import Hold
from service.engine.kind import Kind
from service.engine.outage import patiently
from service.engine.pace import Gate
from service.engine.quarantine import Sentry
from service.engine.settle import settle
from service.engine.settlement import settlement
from service.providers.ports import Provider
from service.settings import Settings
from service.store import attempts, links, recovery
from service.store.attempts import Limits, Settlement
from service.store.database import SchemaRefused, statement
from service.telemetry.context import bound

CROWD = 4  # effects under way from which on settlements wait for each other: fewer commits, a millisecond later
CLAIM_PATIENCE_SECONDS = 30.0  # a restart of Postgres is waited out; after this the row comes due again by itself
# A refund that came before its charge's outcome looks again after this; usually the charge's settlement wakes it.
WAITS_SECONDS = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one message: `asked` ids, `claimed` of them, and how the claimed ones ended by state."""

    asked: int
    claimed: int
    ended: Mapping[str, int]


class Executor:
    """One per worker process, made after the fork: `slots` effects at a time, whatever pool Celery runs."""

    def __init__(self, settings: Settings, *, actor: str) -> None:
        self._limits = Limits(settings.lease, settings.attempt_budget, settings.age_limit)
        self._deadline = settings.provider_deadline
        self._actor = actor
        self._sentry = Sentry(settings)
        self._gate = Gate(settings)
        self._room = Room(2 * settings.slots, at_once=settings.slots)
        self._threads = ThreadPoolExecutor(settings.slots, thread_name_prefix="effect")
        self._settle = Combiner(self._settle_batch, self._room.crowded)
        self._record = Combiner(self._record_batch, self._room.crowded)

    def run(self, kind: Kind, ids: Sequence[str], *, task_id: str | None = None) -> Report:
        """Execute each effect that is due and free; returns when all of them are settled or given up.

        Those that the provider's limits hold back come due again. `task_id` names the message in log lines.
        """
        running: list[Future[State | None]] = []
        try:
            provider = kind.provider()  # before anything is claimed: without one there is nothing to attempt
            for some in self._gate.admitted(provider.name, kind.name, ids, self._room):
                running += self._start(kind, provider, some, task_id)
            if len(running) < len(ids):
                _tell_of_strangers(ids)
        except (SettingsError, DependencyUnavailable) as error:
            # The rest of the message was not claimed, so it comes due again; a traceback would say no more than this.
            log.error("not_executed", kind=kind.name, error=str(error))  # noqa: TRY400
        except Quarantined as closed:
            self._sentry.refused(closed)
        wait(running)
        ended = [future.result() for future in running]
        return Report(len(ids), len(running), {s.value: ended.count(s) for s in State if s in ended})

    def _start(
        self, kind: Kind, provider: Provider, ids: Sequence[str], task_id: str | None
    ) -> list[Future[State | None]]:
        """Claim what is due and free of `ids`, which have their places, and hand it to the threads.

        Raises DependencyUnavailable or Quarantined, nothing claimed.
        """
        claimed: list[Attempt] = []
        try:
            claimed_at, claimed = self._claim(kind, ids)
        finally:
            self._room.leave(len(ids) - len(claimed))
        self._gate.unclaimed(provider.name, kind.name, sorted(set(ids) - {attempt.id for attempt in claimed}))
        work = partial(self._one, kind, provider, claimed_at=claimed_at, task_id=task_id)
        return [self._threads.submit(work, attempt) for attempt in claimed]

    def _claim(self, kind: Kind, ids: Sequence[str]) -> tuple[float, list[Attempt]]:
        def work() -> tuple[float, list[Attempt]]:
            asked_at = monotonic()  # the lease begins later than this, so it ends later than we think
            with statement() as connection:
                claimed = attempts.claim(
                    connection,
                    ids,
                    self._limits,
                    actor=self._actor,
                    kind=kind.name,
                    watermark=self._sentry.watermark,
                )
                if len(claimed) < len(ids):
                    attempts.park_spent(connection, ids, self._limits, actor=self._actor)
                    links.hold_back(connection, ids, seconds=WAITS_SECONDS)
            return asked_at, claimed

        until = monotonic() + CLAIM_PATIENCE_SECONDS
        return patiently(work, what="Postgres", enough=lambda: monotonic() > until, sleep=sleep)

    def _one(
        self, kind: Kind, provider: Provider, attempt: Attempt, *, claimed_at: float, task_id: str | None
    ) -> State | None:
        """One attempt, from its lease to its settlement; None when another attempt owned the effect by then."""
        message = {"task_id": task_id} if task_id else {}
        try:
            with bound(
                attempt.context,
                effect_id=attempt.id,
                kind=attempt.kind,
                attempt=attempt.number,
                tenant=attempt.tenant,
                **message,
            ):
                return self._attempt(kind, provider, attempt, claimed_at)
        finally:
            self._room.leave(1)

    def _attempt(self, kind: Kind, provider: Provider, attempt: Attempt, claimed_at: float) -> State | None:
        hold = Hold(
            attempt, claimed_at=claimed_at, lease=self._limits.lease, deadline=self._deadline, record=self._recorded
        )
        outcome = _perform(provider, attempt, hold)
        done = self._settlement(provider, attempt, outcome)
        follow_ups = kind.follow_up(attempt, outcome) if isinstance(outcome, Succeeded) else []
        owned = self._settled(done, follow_ups, until=claimed_at + self._limits.lease)
        level = log.info if done.state in FINAL and owned else log.warning
        level("settled" if owned else "fenced_out", state=done.state.value, reason=done.error)
        self._gate.learned(provider.name, attempt, outcome)
        return done.state if owned else None

    def _settlement(self, provider: Provider, attempt: Attempt, outcome: Outcome) -> Settlement:
        return settlement(
            attempt, outcome, provider=provider.name, guarantee=provider.guarantee, limits=self._limits, random=random
        )

    def _settled(self, done: Settlement, follow_ups: list[Order], *, until: float) -> bool:
        """W9: the answer is here and not written yet. Writing it is guarded, so it is tried while the lease lasts."""
        try:
            return patiently(
                lambda: self._settle((done, follow_ups)),
                what="Postgres",
                enough=lambda: monotonic() > until,
                sleep=sleep,
            )
        except DependencyUnavailable:
            log.exception("settlement_lost", state=done.state.value)  # the lease runs out; the same key asks again
            return False

    def _settle_batch(self, items: Sequence[tuple[Settlement, list[Order]]]) -> list[bool]:
        try:
            owned = settle(items, actor=self._actor)
        except SchemaRefused:
            # One of them contradicts a promise of the schema; the others must not suffer for it.
            return [self._settle_one(item) for item in items]
        return [(done.id, done.attempt) in owned for done, _ in items]

    def _settle_one(self, item: tuple[Settlement, list[Order]]) -> bool:
        try:
            return bool(settle([item], actor=self._actor))
        except SchemaRefused as error:
            done = item[0]
            # Only the first line: Postgres goes on with the failing row, which holds the request.
            reason = str(error.orig).partition("\n")[0][:200]
            log.error("settlement_refused", state=done.state.value, reason=reason)  # noqa: TRY400
            parked = Settlement(
                id=done.id,
                attempt=done.attempt,
                state=State.PARKED,
                fact="parked",
                in_doubt=True,
                evidence={**done.evidence, "reason": "schema_refused", "detail": reason},
                parked_reason="schema_refused",
                error=reason,
            )
            return bool(settle([(parked, [])], actor=self._actor))

    def _recorded(self, attempt: Attempt, progress: Mapping[str, Any]) -> bool:
        return self._record((attempt, progress))

    def _record_batch(self, items: Sequence[tuple[Attempt, Mapping[str, Any]]]) -> list[bool]:
        with statement() as connection:
            owned = attempts.record(connection, items, self._limits.lease, actor=self._actor)
        return [(attempt.id, attempt.number) in owned for attempt, _ in items]


def _tell_of_strangers(ids: Sequence[str]) -> None:
    """One line for a whole message, however many effects it names that nobody knows."""
    with suppress(DependencyUnavailable), statement() as connection:
        if unknown := recovery.strangers(connection, ids):
            log.warning("unknown_effects", count=unknown)


def _perform(provider: Provider, attempt: Attempt, hold: Hold) -> Outcome:
    try:
        return provider.perform(attempt, hold)
    except LeaseLost:
        # Raised before a first byte or at a refused recovery point, never after an unanswered send: nothing of this
        # attempt is open. Whether we may still write that down is decided by the guard in the SQL.
        return Deferred("lease_lost")
    except DependencyUnavailable as error:
        return Deferred("dependency_unavailable", evidence={"detail": str(error)[:200]})
    except Exception as error:
        log.exception("provider_bug")
        return Unknown("bug", evidence={"exception": type(error).__name__})


class Room:
    """Counts claimed, unfinished effects, so that a process never claims more than it can start within the lease."""

    def __init__(self, size: int, *, at_once: int = 1) -> None:
        self.at_once = at_once  # of one message
        self._size = size
        self._free = size
        self._changed = threading.Condition()

    def crowded(self) -> bool:
        """Whether effects end so often that one may wait a moment for the next."""
        return self._size - self._free >= CROWD

    def enter(self, count: int) -> None:
        """Wait until there is room for `count`."""
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    def leave(self, count: int) -> None:
        """Make room for `count` others."""
        if count:
            with self._changed:
                self._free += count
                self._changed.notify_all()
