"""Relay: hands each due effect to the broker at least once, in any order; until it is settled, it comes due again.

W2: what was committed is found here, rung for or not. W3: taking commits first, publishing comes after, so a relay
that dies in between only delays. W4: a message that is lost, doubled or late changes nothing but the time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from time import monotonic
from typing import Protocol

import psycopg
import structlog

from service.broker.messages import Message
from service.core.errors import DependencyUnavailable
from service.engine import drive
from service.engine.outage import patiently, went_away
from service.engine.pace import Meter
from service.engine.quarantine import Sentry
from service.settings import Settings
from service.store import bell, lanes, outbox
from service.store.database import statement
from service.store.glance import Glance, glance

BATCH_MAX = 500  # rows taken at once: one commit and one pipelined publish carry them
MESSAGE_EFFECTS_MAX = 32  # effects in one message: what makes Celery cheap, small enough to spread over workers
# A busy relay lets rows gather for this long; it more than doubles throughput and costs a quiet system nothing.
GATHER_SECONDS = 0.01
QUIET_SECONDS = 0.05  # only a relay that has heard nothing for this long asks when the next row comes due
LOOK_SECONDS = 0.25  # how soon an operation goes on, how old the count of rows in flight and of paused lanes may be
AGAIN_SECONDS = 0.1  # between a lost connection and the next look: a restart takes longer, a cut wire does not
PUT_BACK_SECONDS = 1.0  # rows whose publishing failed come due again; the relay itself waits for the broker first

_POSTGRES = "Postgres"

log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """The broker's side, as the relay needs it."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over, confirmed. Raises DependencyUnavailable: then each message may or may not have gone out."""

    def ping(self) -> None:
        """Raises DependencyUnavailable while the broker does not answer."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one `run_once` did. `full`: there may be more at once, or the window has no room for it."""

    taken: int = 0
    messages: int = 0
    leased_out: int = 0
    full: bool = False


class Relay:
    """One relay; any number may run side by side."""

    def __init__(self, publisher: Publisher, settings: Settings, *, actor: str) -> None:
        self._publisher = publisher
        self._settings = settings
        self._actor = actor
        self._sentry = Sentry(settings)
        self._meter = Meter(actor)
        self._stopping = threading.Event()
        self._room = 0
        self._took_at = 0.0
        self._looked_at = float("-inf")
        self._driving = False
        self._paused: frozenset[str] = frozenset()

    def stop(self) -> None:
        """Finish the batch at hand, then leave `run`."""
        self._stopping.set()

    def run_once(self) -> Round:
        """Take what is due and publish it. Raises DependencyUnavailable; then what was taken comes due again."""
        due, lost, full = self._take()
        messages = list(_messages(due))
        if messages:
            self._publish(messages)
        return Round(len(due), len(messages), len(lost), full)

    def run(self) -> None:
        """Relay until `stop()`; outages of the broker or the database are waited out."""
        while not self._stopping.is_set():
            try:
                # A whole round proves that Postgres is there; only then is the outage over, and the next one news.
                patiently(self._round, what=_POSTGRES, enough=self._stopping.is_set, sleep=self._stopping.wait)
                self._relay()
            except DependencyUnavailable as error:
                went_away(_POSTGRES, error)
                self._stopping.wait(AGAIN_SECONDS)

    def _relay(self) -> None:
        """Raises DependencyUnavailable when Postgres goes away."""
        with _hearing() as listener:
            if listener.deaf:
                log.info("no_bell", reason="a pooler stands before Postgres", poll_seconds=self._settings.poll)
            while not self._stopping.is_set():
                done = self._round()
                if done.full:
                    self._stopping.wait(GATHER_SECONDS)
                    continue
                if not listener.wait(QUIET_SECONDS) and not self._stopping.is_set():
                    listener.wait(self._pause())
                if done.taken > 1:
                    # Rows come quickly: let them come together (less what publishing has used up).
                    self._stopping.wait(max(0.0, self._took_at + GATHER_SECONDS - monotonic()))

    def _round(self) -> Round:
        try:
            return self.run_once()
        except BrokerAway:
            patiently(self._publisher.ping, what="broker", enough=self._stopping.is_set, sleep=self._stopping.wait)
            return Round(full=True)

    def _pause(self) -> float:
        if self._sentry.quarantined():  # what is due stays due
            return self._settings.poll
        with statement() as connection:
            due = outbox.seconds_until_due(connection)
        longest = min(self._settings.poll, LOOK_SECONDS) if self._driving else self._settings.poll
        return longest if due is None else min(max(due, 0.0), longest)

    def _take(self) -> tuple[list[outbox.Due], list[str], bool]:
        if self._sentry.quarantined():
            return [], [], False
        if self._nothing_is_due():
            return [], [], False
        batch = min(BATCH_MAX, self._room)
        if batch <= 0:
            return [], [], True
        taken = self._meter.take(batch, self._settings.redelivery)
        lost = self._lease_out([row.effect_id for row in taken if row.again])
        due = self._not_paused(taken)
        self._took_at = monotonic()
        self._room -= len(due)
        if lost:
            log.warning("leases_lost", count=len(lost))
        return due, lost, len(taken) == batch

    def _nothing_is_due(self) -> bool:
        """Look around now and then; operations and lanes may make rows due, which are taken in the same round."""
        if self._room > 0 and monotonic() < self._looked_at + LOOK_SECONDS:
            return False
        with statement() as connection:
            seen = glance(connection)
        self._paused = seen.paused
        # Several relays may overshoot the window by a batch each.
        self._room = self._settings.window - seen.in_flight
        self._driving = self._drive(seen)
        self._looked_at = monotonic()
        return not self._driving and (seen.due is None or seen.due > 0)

    def _drive(self, seen: Glance) -> bool:
        """Whether there was something: the next batch of it must not wait for the poll."""
        driven = seen.driving and drive.run_once().operations > 0
        if seen.releasable:
            with statement() as connection:
                return lanes.release(connection) > 0 or driven
        return driven

    def _not_paused(self, taken: list[outbox.Due]) -> list[outbox.Due]:
        held = [row.effect_id for row in taken if row.lane in self._paused]
        if not held:
            return taken
        with statement() as connection:
            lanes.put_aside(connection, held)
        return [row for row in taken if row.lane not in self._paused]

    def _lease_out(self, again: Sequence[str]) -> list[str]:
        if not again:
            return []
        with statement() as connection:
            return outbox.lease_out(connection, again, actor=self._actor)

    def _publish(self, messages: Sequence[Message]) -> None:
        try:
            self._publisher.publish(messages)
        except DependencyUnavailable as error:
            ids = [effect_id for message in messages for effect_id in message.effect_ids]
            with statement() as connection:
                outbox.put_back(connection, ids, after=PUT_BACK_SECONDS, error=str(error))
            raise BrokerAway(str(error)) from error


class BrokerAway(DependencyUnavailable):
    """The broker, not the database, is what is waited for."""


@contextmanager
def _hearing() -> Iterator[bell.Listener]:
    try:
        with bell.listening() as listener:
            yield listener
    except psycopg.Error as error:
        raise DependencyUnavailable(f"Postgres does not answer: {str(error).strip()[:200]}") from error


def _messages(due: Sequence[outbox.Due]) -> Iterator[Message]:
    """Group rows of one kind and lane; a lane's order (priority, then age) is kept."""

    def wire(row: outbox.Due) -> tuple[str, str]:
        return row.kind, row.lane

    for (kind, lane), rows in groupby(sorted(due, key=wire), key=wire):
        ids = [row.effect_id for row in rows]
        for i in range(0, len(ids), MESSAGE_EFFECTS_MAX):
            yield Message(kind, lane, tuple(ids[i : i + MESSAGE_EFFECTS_MAX]))
