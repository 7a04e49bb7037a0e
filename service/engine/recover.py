"""Recover: bring a database that went back in time up to what the provider knows, and release it on a person's word.

    quarantine   nothing is claimed; what attempts of the lost life still had under way ends within a lease
    doubt        every unsettled effect may have been sent: the same key, or a look, decides later
    import       the provider's objects since then: ours are pointed to, forgotten ones become orphans, and what
                 contradicts a settled effect becomes a break; nothing is refunded
    release      one row: who, why, and what was found

Each step may be repeated, so a recovery that was cut short is simply run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog

from service.core.errors import ValidationError
from service.core.state import FINAL, State
from service.engine.quarantine import standing
from service.providers.build import stripe_api
from service.providers.stripe.leftovers import Leftover, leftovers
from service.settings import Settings
from service.store import breaks, incarnation, orphans, recovery
from service.store.database import statement, transaction
from service.store.incarnation import Quarantine, Standing
from service.store.orphans import ORPHAN_BREAK, Orphan
from service.store.recovery import Known

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Before the last claim that the database knows: clocks of two machines, and objects that Stripe made from an attempt's
# later retry. A page holds a hundred objects, so an hour more costs seconds.
MARGIN = timedelta(hours=1)
BATCH_OBJECTS = 100  # as a page: one short transaction
_NOTE = {"charge": "payment_intent", "refund": "refund"}
_PROVIDER = "stripe"
_ALL = 2**62  # no quarantine was written down yet, so nothing is known to be accepted after it

Tell = Callable[[str], None]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery would do: from when on the provider is asked, what is in doubt, what was found there."""

    standing: Standing
    since: datetime
    doubtful: dict[str, int]
    found: dict[str, int]


@dataclass(slots=True)
class Survey:
    """What the provider's list says, counted."""

    counts: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, int]:
        """All counts, the zeros too."""
        names = ("objects", "known", "pointed", "orphans", "orphans_with_money", "contradictions", "adopted")
        return {name: self.counts[name] for name in names}


def plan(settings: Settings, *, since: datetime | None, tell: Tell) -> Plan:
    """Look, and change nothing. Raises SettingsError, DependencyUnavailable."""
    with statement() as connection:
        known = incarnation.quarantined(connection)
        begin = since or recovery.known_until(connection) - MARGIN
        in_doubt = recovery.doubtful(connection, last_fact=known.last_fact if known else _ALL)
    survey = Survey()
    for page in _pages(settings, begin, tell):
        with statement() as connection:
            _sort(connection, page, survey)
    return Plan(standing(settings), begin, in_doubt, survey.document())


@dataclass(frozen=True, slots=True)
class Done:
    """What a recovery did."""

    incarnation: int
    since: datetime
    doubted: int
    found: dict[str, int]


def execute(
    settings: Settings, *, since: datetime | None, actor: str, reason: str, tell: Tell, sleep: Callable[[float], object]
) -> Done:
    """Recover and release. `since` is needed when nothing but the operator knows that the database went back.

    Raises ValidationError when there is nothing to recover, SettingsError, DependencyUnavailable.
    """
    found = standing(settings)
    if found.open and since is None:
        raise ValidationError(
            "the database is not in quarantine; if it was restored all the same, say to which point with --since",
            field="since",
        )
    with statement() as connection:
        # Asked before anything is closed: a login that cannot open it again must not be who stops a service that sends.
        incarnation.may_release(connection)
        incarnation.quarantine(connection, found.reason or f"a person says so: {reason}")
        begin = since or recovery.known_until(connection) - MARGIN
    closed = _wait_for_the_lost(settings, tell, sleep)
    doubted = _doubt(closed, actor, tell)
    survey = _import(settings, begin, closed, actor, tell)
    counts = {**survey.document(), "doubted": doubted, "since": begin.isoformat()}
    with transaction() as connection:
        released = incarnation.release(connection, closed.id, actor=actor, reason=reason, counts=counts)
    if not released:
        raise ValidationError("another recovery has released the database meanwhile; look again", field="execute")
    log.warning("released", actor=actor, reason=reason, **counts)
    return Done(closed.id, begin, doubted, survey.document())


def _wait_for_the_lost(settings: Settings, tell: Tell, sleep: Callable[[float], object]) -> Quarantine:
    """Attempts that were claimed in the lost life may send until their lease is over: only then is the list whole."""
    while True:
        with statement() as connection:
            closed = incarnation.quarantined(connection)
        if closed is None:
            raise ValidationError("another recovery has released the database meanwhile; look again", field="execute")
        left = settings.lease - closed.age_seconds
        if left <= 0:
            return closed
        tell(f"waiting {left:.0f} s for attempts of the life that was lost to end")
        sleep(min(left, 5.0))


def _doubt(closed: Quarantine, actor: str, tell: Tell) -> int:
    total = 0
    while True:
        with transaction() as connection:
            done = recovery.doubt(connection, last_fact=closed.last_fact, actor=actor)
        if not done:
            return total
        total += done
        tell(f"{total} unsettled effects marked as maybe sent")


def _import(settings: Settings, since: datetime, closed: Quarantine, actor: str, tell: Tell) -> Survey:
    """Of several objects of one name the one that moved money counts, in whatever order they are listed.

    A worker that stood still in W11 leaves a PaymentIntent that nobody confirmed beside the one that its heir did. To
    adopt the first would be to confirm it: a second charge. So it is looked at when all that moved has its place.
    """
    survey, unmoved = Survey(), list[Leftover]()
    for page in _pages(settings, since, tell):
        with transaction() as connection:
            for thing, known in _sort(connection, page, survey):
                if thing.moved or (known is not None and known.ref is not None):
                    _place(connection, thing, known, survey, closed=closed, actor=actor)
                else:
                    unmoved.append(thing)
    for at in range(0, len(unmoved), BATCH_OBJECTS):
        with transaction() as connection:
            batch = unmoved[at : at + BATCH_OBJECTS]
            known_now = recovery.known(connection, [thing.effect_id for thing in batch])
            for thing in batch:
                _place(connection, thing, known_now.get(thing.effect_id), survey, closed=closed, actor=actor)
    return survey


def _place(
    connection: Connection, thing: Leftover, known: Known | None, survey: Survey, *, closed: Quarantine, actor: str
) -> None:
    """Ours are pointed to, forgotten ones become orphans, and what cannot be is a break."""
    if known is None:
        _orphan(connection, thing, closed)
        return
    if thing.kind == known.kind and known.ref is None and State(known.state) not in FINAL:
        if recovery.point(connection, known.id, name=_NOTE[thing.kind], ref=thing.ref, actor=actor):
            survey.counts["pointed"] += 1
            return
        # Another object of its own was faster, on the same page or in the same batch.
        known = recovery.known(connection, [known.id])[known.id]
        survey.counts["contradictions"] += _contradiction(thing, known) is not None
    if (wrong := _contradiction(thing, known)) is not None:
        _break(connection, wrong, known.id, thing)


def _pages(settings: Settings, since: datetime, tell: Tell) -> Iterator[list[Leftover]]:
    total = 0
    for page in leftovers(stripe_api(settings), since, seconds=settings.provider_deadline):
        total += len(page)
        tell(f"{total} objects of ours read from the provider")
        yield page


def _sort(connection: Connection, page: Sequence[Leftover], survey: Survey) -> list[tuple[Leftover, Known | None]]:
    """Each object with the effect it names, None for an orphan; what an effect has adopted is left out."""
    known = recovery.known(connection, [thing.effect_id for thing in page])
    adopted = orphans.adopted_among(connection, _PROVIDER, [thing.ref for thing in page])
    sorted_: list[tuple[Leftover, Known | None]] = []
    for thing in page:
        survey.counts["objects"] += 1
        if thing.ref in adopted:
            survey.counts["adopted"] += 1
            continue
        effect = known.get(thing.effect_id)
        if effect is None:
            survey.counts["orphans"] += 1
            survey.counts["orphans_with_money"] += thing.moved
        else:
            survey.counts["known"] += 1
            survey.counts["contradictions"] += _contradiction(thing, effect) is not None
        sorted_.append((thing, effect))
    return sorted_


def _contradiction(thing: Leftover, known: Known) -> str | None:
    """The class of the break when an object cannot be what our books say; None when it can."""
    if thing.kind != known.kind:
        return "orphan_at_provider" if thing.moved else None
    if not thing.moved:
        mine = known.state == State.SUCCEEDED and known.ref == thing.ref
        # Refunded or captured since is still `succeeded`; anything less never was.
        return "missing_at_provider" if mine else None
    if known.state == State.FAILED:
        return "false_negative"
    if known.ref is not None and known.ref != thing.ref:
        return "duplicate_effect"
    if (known.amount, known.currency) != (thing.amount, thing.currency):
        return "amount_mismatch"
    return None


def _orphan(connection: Connection, thing: Leftover, closed: Quarantine) -> None:
    orphans.keep(
        connection,
        Orphan(
            _PROVIDER,
            thing.ref,
            thing.kind,
            thing.effect_id,
            thing.dedupe_hash,
            thing.amount,
            thing.currency,
            thing.created_at,
        ),
        incarnation=closed.id,
    )
    if thing.moved:  # an unconfirmed PaymentIntent moves nothing, so nobody need look at it
        # An audit that meets it calls it the same, so that it is one break.
        _break(connection, ORPHAN_BREAK, f"{thing.kind} {thing.ref}", thing)


def _break(connection: Connection, class_: str, subject: str, thing: Leftover) -> None:
    detail: dict[str, Any] = {"status": thing.status, "created": thing.created_at, "found_by": "recover"}
    breaks.open(
        connection,
        class_,
        subject,
        effect_id=thing.effect_id,
        provider=_PROVIDER,
        provider_ref=thing.ref,
        amount=thing.amount,
        currency=thing.currency,
        detail=detail,
    )
