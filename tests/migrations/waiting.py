"""Watching a migration at work."""

from __future__ import annotations

import time

import psycopg

WAIT_SECONDS = 60.0


def building(connection: psycopg.Connection) -> int:
    """The backend that waits for old snapshots with its index half built."""
    query = """
        select p.pid from pg_stat_progress_create_index p join pg_stat_activity a using (pid)
        where p.datname = current_database() and a.wait_event_type = 'Lock'
    """
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        if found := connection.execute(query).fetchone():
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("no index is being built")
