"""Retention: old requests, events and plans go, a batch at a time; keys, fingerprints, money and facts stay for ever.

    plan     what would go, in numbers and bytes, and why the rest stays; writes nothing
    prune    let it go: short commits with a rest after each, so that nobody else notices; stopped, it goes on later

A repeat of a purged key still answers the same effect, and another request under it is still refused (I4): both are
told by the fingerprint. Nothing unsettled is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from service.core.errors import DependencyUnavailable
from service.settings import Settings
from service.store import actions, journal, retention
from service.store.actions import Door
from service.store.database import transaction
from service.store.journal import Month

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH = 500
# Stripe keeps a key for 24 hours at least (Stripe docs, "Idempotent requests"); a day more for clocks and for us.
PROVIDER_WINDOW_SECONDS = 2 * 86400.0
# An audit asks our inbox for whatever Stripe's list of events shows, and that goes back 30 days (Stripe docs, "List all
# events").
EVENT_DAYS_MIN = 35
_WINDOW_FIRST_SECONDS, _WINDOW_MIN_SECONDS, _WINDOW_MAX_SECONDS = 3600.0, 1.0, 30 * 86400.0
_NO_ID = "00000000-0000-0000-0000-000000000000"

_Done = TypeVar("_Done")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MonthPlan:
    """One old month of the journal; `kept` says why it stays: 'unsettled' or 'young' effects have facts in it."""

    name: str
    facts: int
    bytes: int
    kept: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would let go. `requests_before`: settled earlier than that; None when requests are kept for ever."""

    requests_before: datetime | None
    requests: int
    bytes: int
    kept: dict[str, int]
    events: int
    plans: int
    items: int
    months: tuple[MonthPlan, ...]

    @property
    def empty(self) -> bool:
        """Nothing would go."""
        return not (self.requests or self.events or self.plans or self.items or any(not m.kept for m in self.months))


@dataclass(slots=True)
class Pruned:
    """What one run has let go. `complete` is False when its time was over before the end."""

    requests: int = 0
    events: int = 0
    items: int = 0
    months: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Run:
    until: float
    rest: Callable[[float], None]
    pace: float

    def over(self) -> bool:
        return monotonic() >= self.until

    def batch(self, work: Callable[..., _Done], *given: Any, **named: Any) -> _Done:
        """One short transaction, and a rest in proportion to it."""
        began = monotonic()
        with transaction() as connection:
            done = work(connection, *given, **named)
        self.rest((monotonic() - began) * self.pace)
        return done


def plan(settings: Settings) -> Plan:
    """Count what is old enough. Raises DependencyUnavailable."""
    with transaction() as connection:
        now = retention.now(connection)
        before, since = _requests_before(settings, now), retention.reached(connection)
        requests, size = retention.count(connection, since, before) if before else (0, 0)
        operations = retention.old_operations(connection, _items_before(settings, now))
        return Plan(
            before,
            requests,
            size,
            retention.kept(connection),
            retention.old_events(connection, _events_before(settings, now)),
            operations["plans"],
            operations["items"],
            tuple(
                MonthPlan(month.name, month.facts, month.bytes, why)
                for month in _old_months(settings, journal.months(connection), now)
                for why in [journal.needed(connection, month, settled_before=_long_ago(settings, now))]
            ),
        )


def prune(
    settings: Settings,
    *,
    actor: str,
    door: Door,
    seconds: float = float("inf"),
    pace: float = 1.0,
    progress: Callable[[str, int], None] = lambda *_: None,
    rest: Callable[[float], None] = sleep,
) -> Pruned:
    """Let go what is old enough, for `seconds` at most. `pace`: how long to rest after a batch, in its own lengths.

    Several at once are harmless, each takes what the other has not. Raises DependencyUnavailable.
    """
    run, done = _Run(monotonic() + seconds, rest, pace), Pruned()
    with transaction() as connection:
        now = retention.now(connection)
    _requests(run, done, settings, now, progress)
    _events(run, done, _events_before(settings, now), progress)
    _items(run, done, _items_before(settings, now), progress, actor=actor, door=door)
    _months(run, done, settings, now, actor=actor, door=door)
    with transaction() as connection:
        done.kept = retention.kept(connection)
    done.complete = not run.over()
    return done


def _requests(run: _Run, done: Pruned, settings: Settings, now: datetime, progress: Callable[[str, int], None]) -> None:
    before = _requests_before(settings, now)
    if before is None:
        return
    after: str | None = _NO_ID
    while after and not run.over():
        after, purged = run.batch(retention.again, after, batch=BATCH, window_seconds=PROVIDER_WINDOW_SECONDS)
        done.requests += purged
    since, step = run.batch(retention.reached), _WINDOW_FIRST_SECONDS
    while since < before and not run.over():
        until, step = _window(run, since, before, step)
        gone = _purge(run, since, until)
        if gone is None:
            return
        run.batch(retention.advance, until, done=gone)
        done.requests += gone
        progress("requests", done.requests)
        since = until


def _window(run: _Run, since: datetime, before: datetime, step: float) -> tuple[datetime, float]:
    """From `since` on a stretch with about a batch for each turn, and how long to try the next one."""
    cap = BATCH * retention.TURNS
    while True:
        until = min(since + timedelta(seconds=step), before)
        found = run.batch(retention.size, since, until, cap=cap + 1)
        if found <= cap or step <= _WINDOW_MIN_SECONDS:
            return until, min(step * 2, _WINDOW_MAX_SECONDS) if found < cap / 4 else step
        step = max(step / 4, _WINDOW_MIN_SECONDS)


def _purge(run: _Run, since: datetime, until: datetime) -> int | None:
    """All turns of a window; None when the time was over first, and then the next run begins with this window."""
    purged = 0
    for turn in range(retention.TURNS):
        seen = BATCH
        while seen == BATCH:
            if run.over():
                return None
            some = run.batch(
                retention.purge, since, until, turn=turn, batch=BATCH, window_seconds=PROVIDER_WINDOW_SECONDS
            )
            seen, purged = some.seen, purged + some.purged
    return purged


def _events(run: _Run, done: Pruned, before: datetime, progress: Callable[[str, int], None]) -> None:
    gone = BATCH
    while gone == BATCH and not run.over():
        gone = run.batch(retention.drop_events, before, batch=BATCH)
        done.events += gone
        progress("events", done.events)


def _items(
    run: _Run, done: Pruned, before: datetime, progress: Callable[[str, int], None], *, actor: str, door: Door
) -> None:
    gone = BATCH
    while gone and not run.over():
        gone = run.batch(retention.drop_operations, before, actor=actor, door=door, batch=BATCH)
        done.items += gone
        progress("items of plans", done.items)


def _months(run: _Run, done: Pruned, settings: Settings, now: datetime, *, actor: str, door: Door) -> None:
    settled_before = _long_ago(settings, now)

    def drop(connection: Connection, month: Month) -> bool:
        if journal.needed(connection, month, settled_before=settled_before):
            return False
        journal.drop(connection, month, settled_before=settled_before)
        detail = {"facts": month.facts, "bytes": month.bytes, "until": month.until}
        actions.write(connection, actor=actor, door=door, verb="month_dropped", subject=month.name, detail=detail)
        return True

    with transaction() as connection:
        old = _old_months(settings, journal.months(connection), now)
    for month in old:
        if run.over():
            return
        try:
            dropped = run.batch(drop, month)
        except DependencyUnavailable as error:  # somebody reads the journal for long: the next run tries again
            log.warning("month_not_dropped", month=month.name, error=str(error))
            return
        if not dropped:
            return  # the months after it have younger effects still
        done.months.append(month.name)


def _requests_before(settings: Settings, now: datetime) -> datetime | None:
    return now - timedelta(days=settings.payload_days) if settings.payload_days else None


def _events_before(settings: Settings, now: datetime) -> datetime:
    return now - timedelta(days=max(settings.payload_days, EVENT_DAYS_MIN))


def _items_before(settings: Settings, now: datetime) -> datetime:
    return _events_before(settings, now)


def _long_ago(settings: Settings, now: datetime) -> datetime:
    """Effects with facts in an old month must be settled since then: as long as the facts are kept themselves."""
    return now - timedelta(days=28 * max(settings.journal_months, 1))


def _old_months(settings: Settings, months: list[Month], now: datetime) -> list[Month]:
    if not settings.journal_months:
        return []
    utc = now.astimezone(UTC)
    year, month = divmod(utc.year * 12 + utc.month - 1 - settings.journal_months, 12)
    first_kept = datetime(year, month + 1, 1, tzinfo=UTC)
    return [one for one in months if one.until is not None and one.until <= first_kept]
