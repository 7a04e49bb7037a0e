"""Audit: compare our books with the provider's over a window, and keep what does not agree as breaks.

    read     the provider's lists of the window, page by page, into temporary tables (flat memory)
    take     our effects of the window, after the provider's objects: what it has in addition is really in addition
    ask      one by one for what we believe to have moved and no list shows: a bank may have taken days
    compare  one question for each class of break; its answers are rows until a person closes them

Whatever is younger than the settle lag is left for the next audit. Nothing is repaired here and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from service.core.errors import ValidationError
from service.providers.mail import books as mail_books
from service.providers.stripe import books as stripe_books
from service.providers.stripe.api import StripeApi
from service.providers.stripe.charges import HORIZON_SECONDS
from service.settings import Settings
from service.store import audit_tables, audits, journal
from service.store.audit_duties import CHECKS
from service.store.audit_tables import Window

if TYPE_CHECKING:
    from sqlalchemy import Connection

OVERLAP_SECONDS = 3600.0  # windows overlap, so that a clock that was wrong or an answer that came late is met again
MARGIN_SECONDS = 3600.0  # objects are made before the effect is settled; older ones are asked for one by one
SKEW_SECONDS = 60.0  # between the provider's clock and ours
LAG_BEYOND_DEADLINE_SECONDS = 3600.0  # lists are read-after-write, events and searches may be behind by an hour

Progress = Callable[[str, int], None]
"""Called with what is going on and how many rows of it are done."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something may stand before it is a break, in seconds."""

    unknown: float = 2 * 3600.0
    """Longer than retries and a look-up need; not so long that the horizon passes unseen."""
    dead_lease: float = 900.0
    """A relay declares a lost lease within seconds; a quarter of an hour means that none is running."""
    awaiting: float = 7 * 86400.0
    """Banks take days; a hold on a card ends after seven."""
    parked: float = 86400.0
    """A working day for the person it waits for."""
    undelivered: float = 900.0
    """Far longer than a redelivery."""
    unread: float = 3600.0
    """An event in the inbox that nobody has processed."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to audit. Without `since` it goes on from the last audit, without `until` as far as the lag allows."""

    since: datetime | None = None
    until: datetime | None = None
    lag_seconds: float | None = None
    mail_ledger: str | None = None
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit found. `objects`: how many effects have so many money objects. Amounts are minor units.

    `unchecked` says what cannot be told of old effects: `requests_purged` (receipts asked for, recipients, customers;
    their money is compared all the same), `no_facts_before` (doubt and late answers, of months that were dropped).
    """

    audit: int
    since: datetime
    until: datetime
    objects: Mapping[int, int]
    breaks: Mapping[str, int]
    new: Mapping[str, int]
    sums: tuple[Mapping[str, Any], ...]
    seen: Mapping[str, int]
    effects: int
    seconds: float
    unchecked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """Open breaks that this audit has seen."""
        return sum(self.breaks.values())


def run(settings: Settings, wish: Wish, *, actor: str, progress: Progress = lambda *_: None) -> Report:
    """Audit once. Raises ValidationError (the window, another audit), SettingsError, DependencyUnavailable.

    An audit that ends by an exception leaves no cursor; the next one begins where the last finished one ended.
    """
    began = monotonic()
    api = stripe_books.books(settings)
    with audits.session() as connection:
        before = audits.cursor(connection)
        window = _window(connection, wish, settings, before)
        audit = audits.begin(connection, *window, actor=actor)
        seen, effects = _gather(connection, api, window, wish, seconds=settings.provider_deadline, progress=progress)
        asked = {**_asked(settings, wish, window), "facts_from": journal.kept_from(connection)}
        found, new = _compare(connection, audit, asked, progress)
        objects = audits.headline(connection, asked)
        report = Report(
            audit,
            *window,
            objects=objects,
            breaks=found,
            new=new,
            sums=tuple(audits.sums(connection, asked)),
            seen=seen,
            effects=effects,
            seconds=monotonic() - began,
            unchecked=audits.unchecked(connection, window.since),
        )
        audits.finish(connection, audit, _counts(report), before=before)
    return report


def _window(connection: Connection, wish: Wish, settings: Settings, cursor: datetime | None) -> Window:
    now = audits.now(connection)
    lag = wish.lag_seconds
    if lag is None:
        lag = settings.provider_deadline + LAG_BEYOND_DEADLINE_SECONDS
    youngest = now - timedelta(seconds=lag)
    until = min(wish.until or youngest, youngest)
    since = wish.since
    if since is None and cursor is not None:
        since = cursor - timedelta(seconds=OVERLAP_SECONDS)
    if since is None:
        since = (audits.first_effect(connection) or until) - timedelta(seconds=OVERLAP_SECONDS)
    if wish.until and wish.since and wish.since >= wish.until:
        raise ValidationError(
            f"--since {wish.since.isoformat()} is not before --until {wish.until.isoformat()}", field="since"
        )
    if since >= until:
        raise ValidationError(
            f"nothing is old enough yet: --since {since.isoformat()} is not before {until.isoformat()}, "
            f"which is now less the settle lag of {lag:.0f} s",
            field="since",
        )
    return Window(since, until)


def _gather(
    connection: Connection, api: StripeApi, window: Window, wish: Wish, *, seconds: float, progress: Progress
) -> tuple[dict[str, int], int]:
    """Both sides, in the tables of this session; how many objects of each sort, and how many effects."""
    seen: dict[str, int] = {}
    audit_tables.prepare(connection)
    oldest = window.since - timedelta(seconds=MARGIN_SECONDS)
    youngest = window.until + timedelta(seconds=SKEW_SECONDS)
    _load(connection, stripe_books.scan(api, oldest, youngest, seconds=seconds), seen, progress)
    if wish.mail_ledger:
        mail = ((mail_books.Letter, batch) for batch in mail_books.letters(wish.mail_ledger))
        _load(connection, mail, seen, progress)
    audit_tables.tidy(connection)
    progress("our effects", 0)
    effects = audit_tables.take_own(connection, window)
    progress("our effects", effects)
    _load(connection, _asked_for(connection, api, seconds), seen, progress)
    audit_tables.tidy(connection)
    audit_tables.add_up(connection, horizon_seconds=HORIZON_SECONDS)
    return seen, effects


_SORTS = {
    "Intent": "PaymentIntents",
    "Refund": "refunds",
    "Movement": "balance lines",
    "SeenEvent": "events",
    "Letter": "letters",
}


def _load(connection: Connection, batches: Iterable[Any], seen: dict[str, int], progress: Progress) -> None:
    for sort, rows in batches:
        audit_tables.load(connection, rows)
        name = _SORTS[sort.__name__]
        seen[name] = seen.get(name, 0) + len(rows)
        progress(name, seen[name])


def _asked_for(connection: Connection, api: StripeApi, seconds: float) -> Iterator[stripe_books.Batch]:
    """What the lists do not show although we have its id: it may be older than the window."""
    for sort, ask in (("intent", stripe_books.one_intent), ("refund", stripe_books.one_refund)):
        after = ""
        while refs := audit_tables.unseen(connection, sort, after=after):
            for ref in refs:
                yield from ask(api, ref, seconds=seconds)
            after = refs[-1]


def _asked(settings: Settings, wish: Wish, window: Window) -> dict[str, Any]:
    patience = wish.patience
    return {
        "since": window.since,
        "until": window.until,
        "horizon": HORIZON_SECONDS,
        "unknown": patience.unknown,
        "dead_lease": patience.dead_lease,
        "awaiting": patience.awaiting,
        "parked": patience.parked,
        "undelivered": patience.undelivered,
        "unread": patience.unread,
        "mail": wish.mail_ledger is not None,
        "webhooks": settings.stripe_webhook_secret is not None,
    }


def _compare(
    connection: Connection, audit: int, asked: Mapping[str, Any], progress: Progress
) -> tuple[dict[str, int], dict[str, int]]:
    found, new = {}, {}
    for number, check in enumerate(CHECKS, 1):
        found[check.name], new[check.name] = audits.check(connection, check, audit, asked)
        progress("classes of break", number)
    return found, new


def _counts(report: Report) -> dict[str, Any]:
    """What the audit's row keeps."""
    return {
        "objects_per_effect": {str(objects): effects for objects, effects in report.objects.items()},
        "breaks": {name: count for name, count in report.breaks.items() if count},
        "seen": dict(report.seen),
        "effects": report.effects,
        "seconds": round(report.seconds, 1),
        **({"unchecked": {k: str(v) for k, v in report.unchecked.items()}} if report.unchecked else {}),
    }
