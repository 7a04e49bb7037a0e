"""Whether the tables are in good repair: an index that is gone, autovacuum that is off, a snapshot that stands open."""

from __future__ import annotations

import psycopg

from service.store import upkeep
from service.store.database import statement


def test_a_missing_index_is_named(books):
    with statement() as connection:
        assert upkeep.indexes(connection) == ([], [])
    books.run("drop index outbox_held")
    with statement() as connection:
        assert upkeep.indexes(connection) == (["outbox_held"], [])


def test_autovacuum_that_is_off_and_a_snapshot_that_stands_open_are_told(books):
    with statement() as connection:
        assert upkeep.vacuum(connection).off == []
    books.run("alter table outbox set (autovacuum_enabled = false)")
    with psycopg.connect(books.url) as somebody:
        somebody.execute("set transaction isolation level repeatable read")
        somebody.execute("select count(*) from effects")
        with statement() as connection:
            found = upkeep.vacuum(connection)
        assert (found.off, found.pid) == (["outbox"], somebody.info.backend_pid)
        assert set(found.dead) == {"effects", "outbox"}
