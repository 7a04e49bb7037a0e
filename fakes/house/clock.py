"""The fake's own time: the machine's, plus what the admin port added. It goes forward only, a day in a millisecond."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), offset_seconds REAL NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
"""


class Clock:
    """Unix seconds as this fake sees them; the offset is stored, so that a restart does not bring dead keys back."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self.offset_seconds = offset_seconds
        self.on_jump: list[Callable[[sqlite3.Connection], object]] = []
        """What came due in between is done before anybody sees the new time: nothing races with a jump."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.offset_seconds

    def advance(self, connection: sqlite3.Connection, seconds: float) -> float:
        """Move on by `seconds`, for good; returns the new time."""
        connection.execute("UPDATE clock SET offset_seconds = offset_seconds + ?", (seconds,))
        self.offset_seconds = stored_offset(connection)
        for due in self.on_jump:
            due(connection)
        return self.now()


def stored_offset(connection: sqlite3.Connection) -> float:
    """The offset an earlier life of this fake left behind."""
    return float(connection.execute("SELECT offset_seconds FROM clock").fetchone()[0])
