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
from typing import Protocol

import psycopg
import structlog

from service.broker.messages import Message
from service.core.errors import DependencyUnavailable
from service.engine.outage import patiently
from service.settings import Settings
from service.store import bell, outbox
from service.store.database import statement, transaction

BATCH_MAX = 500  # rows taken at once: one commit and one pipelined publish carry them
MESSAGE_EFFECTS_MAX = 32  # effects in one message: what makes Celery cheap, small enough to spread over workers
# A busy relay lets rows gather for this long; it more than doubles throughput and costs a quiet system nothing.
GATHER_SECONDS = 0.01
PUT_BACK_SECONDS = 1.0  # rows whose publishing failed come due again; the relay itself waits for the broker first

log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """The broker's side, as the relay needs it."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over, confirmed. Raises DependencyUnavailable: then each message may or may not have gone out."""

    def ping(self) -> None:
        """Raises DependencyUnavailable while the broker does not answer."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one `run_once` did. `full`: the window had no room, the backlog waits in Postgres."""

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
        self._stopping = threading.Event()

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
                patiently(self._relay, what="Postgres", enough=self._stopping.is_set, sleep=self._stopping.wait)
            except DependencyUnavailable:
                break  # told to stop in the middle of an outage

    def _relay(self) -> None:
        with _hearing() as listener:
            while not self._stopping.is_set():
                done = self._round()
                if done.taken or done.full:
                    self._stopping.wait(GATHER_SECONDS)
                elif not self._stopping.is_set():
                    listener.wait(self._pause())

    def _round(self) -> Round:
        try:
            return self.run_once()
        except BrokerAway:
            patiently(self._publisher.ping, what="broker", enough=self._stopping.is_set, sleep=self._stopping.wait)
            return Round(full=True)

    def _pause(self) -> float:
        with statement() as connection:
            due = outbox.seconds_until_due(connection)
        return self._settings.poll if due is None else min(max(due, 0.0), self._settings.poll)

    def _take(self) -> tuple[list[outbox.Due], list[str], bool]:
        with transaction() as connection:
            room = self._settings.window - outbox.in_flight(connection)
            if room <= 0:
                return [], [], True
            due = outbox.take(connection, min(BATCH_MAX, room), self._settings.redelivery)
            again = [row.effect_id for row in due if row.again]
            lost = outbox.lease_out(connection, again, actor=self._actor) if again else []
        if lost:
            log.warning("leases_lost", count=len(lost))
        return due, lost, False

    def _publish(self, messages: Sequence[Message]) -> None:
        try:
            self._publisher.publish(messages)
        except DependencyUnavailable as error:
            ids = [effect_id for message in messages for effect_id in message.effect_ids]
            with transaction() as connection:
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
