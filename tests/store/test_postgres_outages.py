"""What the driver files under bugs and is an outage: all connections in use, and a server that ends slow transactions."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from sqlalchemy import text

from service.core.errors import DependencyUnavailable
from service.store import database as store
from service.store import pooler
from tests.flow.waiting import until


@pytest.mark.usefixtures("database")
def test_a_process_whose_connections_are_all_in_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the chaos suite: forty requests and a frozen Postgres were answered 500."""
    for name, value in (("POOL_SIZE", 1), ("POOL_OVERFLOW", 1), ("POOL_TIMEOUT_SECONDS", 0.1)):
        monkeypatch.setattr(store, name, value)
    with ExitStack() as others:
        for _ in range(2):
            others.enter_context(store.statement())
        with pytest.raises(DependencyUnavailable, match="in use"), store.statement():
            raise AssertionError("there was one left")
    with store.statement() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1


def use_after(limit: str) -> None:
    """A transaction that goes on when the server has lost its patience."""
    with store.transaction() as connection:
        connection.execute(text(f"set {limit} = '20ms'"))
        raw = pooler.driver_connection(connection)
        until(lambda: store._readable(raw.fileno()), "the server has said farewell")
        connection.execute(text("select 1"))


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("limit", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_server_that_ends_a_transaction_of_ours_is_an_outage_and_the_next_one_works(limit: str) -> None:
    """Found by the chaos suite: the driver calls it an InternalError, and a relay died of it."""
    with pytest.raises(DependencyUnavailable, match="hung up"):
        use_after(limit)
    with store.statement() as connection:
        assert connection.execute(text("select 1")).scalar_one() == 1
