"""A connection that is dead is an outage, whenever it died: in the pool, or the moment it was made."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

from service.core.errors import DependencyUnavailable
from service.store.database import make_engine, reachable
from tests.flow.waiting import until

LIVES = text("select 1")


def _end(database: str, connection: Any) -> None:
    """The server ends the session, and the client's socket has heard of it."""
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s)", (connection.info.backend_pid,))
        gone = "select not exists (select from pg_stat_activity where pid = %s)"
        until(lambda: other.execute(gone, (connection.info.backend_pid,)).fetchone() == (True,), "the session is gone")


def test_a_pooled_connection_that_died_is_replaced_and_nobody_notices(database: str) -> None:
    engine = make_engine(database)
    with engine.connect() as connection:
        connection.execute(LIVES)
        raw = connection.connection.dbapi_connection
    _end(database, raw)
    with engine.connect() as connection:
        assert connection.execute(LIVES).scalar_one() == 1
    engine.dispose()


def test_a_server_that_hangs_up_on_each_new_connection_is_away_and_not_a_bug_of_the_caller(database: str) -> None:
    """COUNTERFOIL_TEST_SEED=1183849494 of the wire points: the API answered 500 instead of 503, a mistake of ours."""
    engine = make_engine(database)
    with engine.connect() as connection:
        connection.execute(LIVES)
        raw = connection.connection.dbapi_connection
    event.listen(engine, "connect", lambda made, _record: _end(database, made))
    _end(database, raw)
    with pytest.raises(DependencyUnavailable), reachable(), engine.connect() as connection:
        connection.execute(LIVES)
    engine.dispose()
