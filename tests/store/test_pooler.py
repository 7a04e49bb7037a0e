"""A direct connection keeps what a pooler would cost: prepared statements, the bell, a session of its own."""

from __future__ import annotations

import pytest

from service.store import database as store
from service.store import pooler


@pytest.mark.usefixtures("database")
def test_a_direct_connection_is_not_taken_for_a_pooler() -> None:
    with store.statement() as connection:
        assert not pooler.stands_before(pooler.driver_connection(connection))
        pooler.refuse(connection, "nothing")
