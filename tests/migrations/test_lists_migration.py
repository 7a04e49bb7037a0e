"""Migration 0011 beside its writers: old failures are marked, new ones mark themselves, and a run that was cut goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic import command
from sqlalchemy.exc import SQLAlchemyError

from tests.migrations.test_guards import CLEAN, WHOLE, Sql
from tests.migrations.waiting import WAIT_SECONDS, building
from tests.server import Server

BEFORE, WITH_IT = "0010", "0011"
INDEXES = {"effects_failed", "effects_failed_newest", "effects_tenant_kind", "effects_unsettled", "effects_succeeded"}


@pytest.fixture
def old(postgres: Server) -> Iterator[tuple[str, Sql]]:
    """A database of before, in which effects have failed."""
    with postgres.database() as name:
        postgres.migrate(name, revision=BEFORE)
        with psycopg.connect(postgres.url_of(name), autocommit=True) as connection:
            sql = Sql(connection)
            for number in range(300):
                sql.effect(("failed", "succeeded", "pending")[number % 3])
            yield name, sql


def unmarked(connection: psycopg.Connection) -> int:
    query = "select count(*) from effects where failed is distinct from (state = 'failed')"
    [count] = connection.execute(query).fetchone() or [None]
    return int(count or 0)


def valid(connection: psycopg.Connection) -> set[str]:
    query = "select indexrelid::regclass::text from pg_index where indrelid = 'effects'::regclass and indisvalid"
    return {name for (name,) in connection.execute(query)} & INDEXES


def checked(connection: psycopg.Connection) -> bool:
    query = "select convalidated from pg_constraint where conname = 'effects_failed_state'"
    return connection.execute(query).fetchone() == (True,)


def test_failures_of_before_are_marked_and_the_way_back_forgets_the_mark(postgres, old):
    name, connection = old[0], old[1].connection
    versions = "select id, state, attempt, outcome, settled_at from effects order by id"
    before = connection.execute(versions).fetchall()
    postgres.migrate(name, revision=WITH_IT)
    assert connection.execute("select count(*) from effects where failed").fetchone() == (100,)
    assert (unmarked(connection), valid(connection), checked(connection)) == (0, INDEXES, True)
    command.downgrade(postgres.alembic(name), BEFORE)
    assert (connection.execute(versions).fetchall(), valid(connection)) == (before, set())
    postgres.migrate(name, revision=WITH_IT)
    assert (unmarked(connection), valid(connection)) == (0, INDEXES)


def test_code_that_does_not_know_the_column_marks_what_fails(postgres, old):
    name, sql = old
    connection = sql.connection
    postgres.migrate(name, revision=WITH_IT)
    inserted, changed = sql.effect("failed"), sql.effect("executing")
    sql.change(changed, **{**CLEAN, "state": "failed", "settled_at": "now", "outcome": WHOLE["failed"]["outcome"]})
    sql.change(inserted, request=None)  # a purge
    sql.change(inserted, failed=False)  # nobody can lie
    marked = "select count(*) from effects where failed and id = any(%s::uuid[])"
    assert connection.execute(marked, ([inserted, changed],)).fetchone() == (2,)
    assert unmarked(connection) == 0


def test_a_run_that_was_cut_while_it_built_an_index_goes_on_when_it_is_run_again(postgres, old):
    """Its first half is committed; writers of either version go on meanwhile."""
    name, sql = old
    connection = sql.connection
    with ThreadPoolExecutor(1) as pool, psycopg.connect(postgres.url_of(name)) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from outbox")  # a snapshot that the building has to wait for
        run = pool.submit(postgres.migrate, name, revision=WITH_IT)
        backend = building(connection)
        sql.effect("failed")
        connection.execute("select pg_terminate_backend(%s)", (backend,))
        with pytest.raises(SQLAlchemyError):
            run.result(WAIT_SECONDS)
    assert valid(connection) == set()
    sql.effect("failed")
    assert connection.execute("select version_num from alembic_version").fetchone() == (BEFORE,)
    postgres.migrate(name, revision=WITH_IT)
    assert (unmarked(connection), valid(connection), checked(connection)) == (0, INDEXES, True)
    assert connection.execute("select count(*) from effects where failed").fetchone() == (102,)
