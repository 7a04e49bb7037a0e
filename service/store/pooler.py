"""A pooler between us and Postgres is seen at each new connection, and nothing of ours then lives in a session.

PgBouncer in transaction mode gives each transaction whichever connection of the server is free ("Features", PgBouncer
docs): prepared statements, LISTEN, SET, session locks and temporary tables of one client meet those of another. So
behind one nothing is prepared, the relay polls (W2), and what cannot do without a session asks for a direct connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import psycopg
from sqlalchemy import Connection

from service.core.errors import SettingsError

# PgBouncer refuses what it cannot track unless it is told to drop it, and names it: "unsupported startup parameter".
_REFUSED = "startup parameter"


def connect(dialect: Any, _record: object, args: Sequence[Any], params: Mapping[str, Any]) -> psycopg.Connection[Any]:
    """For SQLAlchemy's `do_connect`: a connection of the driver, without our options where a pooler refuses them."""
    try:
        raw = dialect.connect(*args, **params)
    except psycopg.OperationalError as error:
        if _REFUSED not in str(error):
            raise
        raw = dialect.connect(*args, **{name: value for name, value in params.items() if name != "options"})
    try:
        if _is_pooled(raw):
            raw.prepare_threshold = None
    except BaseException:
        raw.close()
        raise
    return cast("psycopg.Connection[Any]", raw)


def _is_pooled(raw: psycopg.Connection[Any]) -> bool:
    """A pooler speaks for many servers, so the process id that it gave us at the greeting is not one of theirs."""
    raw.autocommit = True  # no transaction is left open by the question
    [pid] = raw.execute("select pg_backend_pid()").fetchone() or (None,)
    raw.autocommit = False
    return bool(pid != raw.info.backend_pid)


def stands_before(raw: psycopg.Connection[Any]) -> bool:
    """Whether a pooler was seen when this connection was made."""
    return raw.prepare_threshold is None


def driver_connection(connection: Connection) -> psycopg.Connection[Any]:
    """The driver's own connection under one of SQLAlchemy's."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def refuse(connection: Connection, what: str) -> None:
    """Raises SettingsError behind a pooler: locks and tables of a session would be left behind in a stranger's."""
    if stands_before(driver_connection(connection)):
        raise SettingsError(
            f"{what} needs a session of its own, and a pooler stands before Postgres: let COUNTERFOIL_DATABASE_URL "
            "of this process name Postgres itself",
            field="COUNTERFOIL_DATABASE_URL",
        )
