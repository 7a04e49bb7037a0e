"""Quarantine: a database that went back in time accepts and shows, and sends nothing until a person releases it.

The claim refuses by itself (`store.incarnation`); what stands here writes the quarantine down, says so in the log once
and then once a minute, and keeps relays from publishing what no worker would claim.
"""

from __future__ import annotations

import threading
from time import monotonic

import structlog

from service.core.errors import Quarantined
from service.settings import Settings
from service.store import incarnation
from service.store.database import statement
from service.store.incarnation import Standing
from service.store.watermark import Watermark

LOOK_SECONDS = 0.25  # how old a relay's knowledge may be: publishing is harmless, only claiming would not be
AGAIN_SECONDS = 60.0  # between two log lines of one process

log = structlog.get_logger(__name__)


class Sentry:
    """One per process that claims or publishes, made after the fork; safe to call from threads."""

    def __init__(self, settings: Settings) -> None:
        self.watermark = Watermark(settings.state_dir)
        self._standing = Standing(open=True)
        self._looked_at = float("-inf")
        self._said_at = float("-inf")
        self._turn = threading.Lock()

    def quarantined(self) -> bool:
        """Whether the database is in quarantine, as of a moment ago. Raises DependencyUnavailable."""
        if monotonic() > self._looked_at + LOOK_SECONDS:
            with statement() as connection:
                self._standing = incarnation.look(connection, self.watermark.peek())
            self._looked_at = monotonic()
            if self._standing.open:
                self._said_at = float("-inf")
            else:
                self.refused(Quarantined(str(self._standing.reason)))
        return not self._standing.open

    def refused(self, closed: Quarantined) -> None:
        """A claim was refused: see that it is written down, and say it. Raises DependencyUnavailable."""
        with self._turn:
            if monotonic() < self._said_at + AGAIN_SECONDS:
                return
            with statement() as connection:
                incarnation.quarantine(connection, closed.reason)
            level = log.error if self._said_at == float("-inf") else log.warning
            level("quarantined", reason=closed.message)
            self._said_at = monotonic()


def standing(settings: Settings) -> Standing:
    """How the database stands, as far as this host can tell; writes nothing. Raises DependencyUnavailable."""
    with statement() as connection:
        return incarnation.look(connection, Watermark(settings.state_dir).peek())


def sentence(found: Standing) -> str:
    """The standing in words."""
    return "released to send" if found.open else f"quarantined: {found.reason}; run `counterfoil recover`"
