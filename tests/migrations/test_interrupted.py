"""A migration that is cut while it builds an index beside the writers is run again, and goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from tests.migrations.waiting import WAIT_SECONDS, building
from tests.server import Server


@pytest.mark.parametrize(
    ("before", "revision", "index"),
    [("0004", "0005", "effects_settled"), ("0006", "0007", "outbox_held"), ("0009", "0010", "outbox_by_kind")],
)
def test_what_was_committed_before_the_cut_is_not_made_twice(
    postgres: Server, before: str, revision: str, index: str
) -> None:
    with postgres.database() as name:
        postgres.migrate(name, revision=before)
        url = postgres.url_of(name)
        with (
            ThreadPoolExecutor(1) as pool,
            psycopg.connect(url, autocommit=True) as connection,
            psycopg.connect(url) as reader,
        ):
            reader.execute("set transaction isolation level repeatable read")
            reader.execute("select * from alembic_version")  # a snapshot that the building has to wait for
            run = pool.submit(postgres.migrate, name, revision=revision)
            connection.execute("select pg_terminate_backend(%s)", (building(connection),))
            with pytest.raises(SQLAlchemyError):
                run.result(WAIT_SECONDS)
            reader.rollback()
            assert connection.execute("select version_num from alembic_version").fetchone() == (before,)
            postgres.migrate(name, revision=revision)
            valid = "select indisvalid from pg_index where indexrelid = %s::regclass"
            assert connection.execute(valid, (index,)).fetchone() == (True,)
