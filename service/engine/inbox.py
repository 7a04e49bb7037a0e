"""The inbox at work: each open event leads to a look at the effect it speaks of, and is never believed by itself.

Receiving is one commit (the event, and the effect's row due now); the ordinary attempt does the rest. What remains for
`run_once`: effects that no attempt will touch (parked, final), or whose PaymentIntent only the event knows. Order and
age of events decide nothing; all open events about one effect are one look (Stripe docs, "Receive Stripe events").
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

import structlog

from service.core.errors import SettingsError
from service.core.event import Event
from service.core.state import FINAL, State
from service.engine import second_object
from service.engine.judgement import Finding
from service.engine.kind import Kind
from service.engine.verify import Verdict, verify
from service.store import bell, inbox
from service.store.database import statement
from service.store.inbox import Received, Row

BATCH = 500
RUN_SECONDS = 8.0  # less than the period of the task, so that runs do not pile up behind a slow provider
HOLD_SECONDS = 120.0  # longer than a run and its last look: who dies with events in hand only delays them
NUDGED_SECONDS = 15.0  # until a nudged event is looked at: its effect's own attempt takes a second or two
WAIT_FIRST_SECONDS = 2.0
WAIT_MAX_SECONDS = 600.0
OPEN_MAX_SECONDS = 3 * 86400.0  # as long as Stripe itself goes on telling; then the audit has to find it
OURS = frozenset({"payment_intent", "charge", "refund"})
"""Objects that our effects make. Whatever else Stripe tells about is kept and ignored."""

_BOTH = FINAL
_FITS: Mapping[str, frozenset[State]] = {
    "payment_intent.succeeded": frozenset({State.SUCCEEDED}),
    "charge.succeeded": frozenset({State.SUCCEEDED}),
    "payment_intent.payment_failed": frozenset({State.FAILED}),
    "payment_intent.canceled": frozenset({State.FAILED}),
    "charge.failed": frozenset({State.FAILED}),
    "charge.expired": frozenset({State.FAILED}),
    "payment_intent.created": _BOTH,
    "payment_intent.processing": _BOTH,
    "payment_intent.requires_action": _BOTH,
    "payment_intent.amount_capturable_updated": _BOTH,
    "charge.pending": _BOTH,
    "charge.updated": _BOTH,
    "charge.captured": _BOTH,
    "charge.refunded": _BOTH,
    "refund.created": _BOTH,
}
"""Final states that an event of this type gives no reason to doubt. Any other type is worth one GET; without this
table each settled charge would cost four."""

log = structlog.get_logger(__name__)


def receive(event: Event, *, actor: str) -> Received:
    """Keep the event and nudge its effect, in one commit, before anything is done about it. Safe to repeat.

    Raises DependencyUnavailable; Stripe then tells it again.
    """
    with statement() as connection:
        received = inbox.receive(connection, event, actor=actor, patience_seconds=NUDGED_SECONDS)
    if received.nudged:
        bell.ring()
    return received


@dataclass(frozen=True, slots=True)
class Run:
    """What one run has to work with."""

    kinds: Mapping[str, Kind]
    actor: str
    seconds: float
    until: float


def run_once(kinds: Mapping[str, Kind], *, actor: str, seconds: float) -> dict[str, int]:
    """Look at what is open and due; returns counts by result. Any number may run side by side.

    `seconds` is the longest one look may take. Raises DependencyUnavailable when Postgres is away.
    """
    run = Run(kinds, actor, seconds, monotonic() + RUN_SECONDS)
    counts: Counter[str] = Counter()
    answers = True
    while answers and monotonic() < run.until:
        with statement() as connection:
            rows = inbox.take(connection, BATCH, hold_seconds=HOLD_SECONDS)
        if not rows:
            break
        answers = _work(run, rows, counts)
    return dict(counts)


def _work(run: Run, rows: list[Row], counts: Counter[str]) -> bool:
    """Decide about each event; False when the provider does not answer, so that the run is over."""
    looks: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
    done: list[tuple[Row, str]] = []
    waits: list[tuple[Row, float]] = []
    for row in rows:
        result = _at_sight(row, run.kinds)
        if result is None and row.effect_id:
            looks[row.effect_id, _second(row)].append(row)
        elif result == "later":
            waits.append((row, _wait(row)))
        else:
            done.append((row, result or "not_ours"))
    _write(done, waits, counts)
    answers = True
    for (effect_id, second), group in looks.items():
        if not answers or monotonic() > run.until:
            _write([], [(row, _wait(row)) for row in group], counts)
            continue
        verdict = _look(run, effect_id, second, group)
        answers = verdict is not None and verdict.finding is not Finding.NO_ANSWER
        _conclude(verdict, group, counts)
    return answers


def _at_sight(row: Row, kinds: Mapping[str, Kind]) -> str | None:
    """The result of an event that needs no look, `later`, or None."""
    if row.object_type not in OURS:
        return "ignored"
    if row.effect_id is None or row.state is None:
        return "not_ours"
    second = _second(row) is not None
    if row.state is State.EXECUTING or row.kind not in kinds or (row.state is State.PENDING and not second):
        return _patience(row)
    fits = row.state in FINAL and row.state in _FITS.get(row.type, ())
    return "agrees" if fits and not second else None


def _patience(row: Row) -> str:
    """An attempt is at work or comes: look when it is over. Whatever is open for days is closed, and told."""
    if row.age_seconds < OPEN_MAX_SECONDS:
        return "later"
    log.warning("event_undecided", event_id=row.event_id, effect_id=row.effect_id, state=row.state)
    return "undecided"


def _second(row: Row) -> str | None:
    """The PaymentIntent of an event whose object names our effect and is not the one that our effect knows."""
    about = row.payment_intent if row.object_type in ("payment_intent", "charge") else None
    return about if row.by_name and about and row.ref not in (None, about) else None


def _look(run: Run, effect_id: str, second: str | None, group: list[Row]) -> Verdict | None:
    """Ask the provider; None when there is none to ask."""
    kind = run.kinds[group[0].kind or ""]
    try:
        if second:
            return second_object.look(kind, effect_id, second, actor=run.actor, seconds=run.seconds)
        intent = next((row.payment_intent for row in group if row.object_type != "refund" and row.payment_intent), None)
        return verify(kind, effect_id, actor=run.actor, seconds=run.seconds, intent=intent)
    except SettingsError as error:
        log.error("not_verified", kind=kind.name, error=str(error))  # noqa: TRY400 - the sentence says it all
        return None


def _conclude(verdict: Verdict | None, group: list[Row], counts: Counter[str]) -> None:
    if verdict is None or verdict.finding in (Finding.NO_ANSWER, Finding.BUSY):
        results = [(row, _patience(row)) for row in group]
        done = [(row, result) for row, result in results if result != "later"]
        _write(done, [(row, _wait(row)) for row, result in results if result == "later"], counts)
        return
    moving = verdict.state in (State.UNKNOWN, State.AWAITING)  # its own attempts go on
    result = "nudged" if verdict.finding is Finding.UNDECIDED and moving else verdict.finding.value
    _write([(row, result) for row in group], [], counts)


def _write(done: Iterable[tuple[Row, str]], waits: Iterable[tuple[Row, float]], counts: Counter[str]) -> None:
    finished, put_back = list(done), list(waits)
    with statement() as connection:
        if finished:
            inbox.finish(connection, finished)
        if put_back:
            inbox.later(connection, put_back)
    counts.update(result for _, result in finished)
    counts["later"] += len(put_back)


def _wait(row: Row) -> float:
    """Backoff by the tries of this event."""
    return float(min(WAIT_FIRST_SECONDS * 2.0 ** min(row.tries - 1, 20), WAIT_MAX_SECONDS))
