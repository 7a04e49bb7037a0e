"""Whose request this is, for row-level security: told to Postgres in each transaction, when the login is bound by it.

The API's own login sees the effects of one tenant at a time, the one in `counterfoil.tenant` (`counterfoil db roles`),
so a query that forgot its `where tenant = …` finds nothing of others. Set for the transaction and never the session:
behind PgBouncer a session is shared. Other logins, and callers that have no tenant, pay no round trip for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, text

from service.store import pooler

SETTING = "counterfoil.tenant"

_tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
_bound: WeakKeyDictionary[Engine, bool] = WeakKeyDictionary()
"""Whether the login of an engine is bound; asked once."""

_ASK = "select row_security_active(to_regclass('effects')::oid)"
_TELL: LiteralString = f"select set_config('{SETTING}', {{}}, true)"
_TELL_BOUND = text(f"select set_config('{SETTING}', :tenant, true)")


@contextmanager
def as_tenant(tenant: str) -> Iterator[None]:
    """Whatever is asked of the database in here is asked for this tenant."""
    before = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(before)


def enter(tenant: str) -> None:
    """The same for the rest of this task: a request's, which ends with it."""
    _tenant.set(tenant)


def current() -> str | None:
    """The tenant that the database is asked for; None is nobody in particular."""
    return _tenant.get()


def tell(connection: Connection) -> None:
    """Say whose transaction this is, if Postgres wants to know. For one that has begun."""
    tenant = _tenant.get()
    if tenant is not None and _is_bound(connection):
        connection.execute(_TELL_BOUND, {"tenant": tenant})


@contextmanager
def told(connection: Connection) -> Iterator[None]:
    """For a connection in autocommit: as it is, or one transaction of the tenant when Postgres wants to know whose."""
    tenant = _tenant.get()
    if tenant is None or not _is_bound(connection):
        yield
        return
    raw = pooler.driver_connection(connection)
    # Both in one message; prepared it could not be, since it is two statements.
    raw.execute(sql.SQL("begin; " + _TELL).format(sql.Literal(tenant)), prepare=False)
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):  # the server may be gone, and what went wrong is what is being raised
            raw.rollback()
        raise
    _commit(connection, raw)


def _commit(connection: Connection, raw: psycopg.Connection[Any]) -> None:
    # Through SQLAlchemy, so that an outage here reads like any other.
    connection.exec_driver_sql("commit")
    assert raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE  # noqa: S101 - ours, and committed


def _is_bound(connection: Connection) -> bool:
    if (known := _bound.get(connection.engine)) is None:
        found = connection.exec_driver_sql(_ASK).scalar_one()
        if found is None:  # before `db upgrade` nobody is bound, and afterwards somebody may be
            return False
        known = _bound[connection.engine] = bool(found)
    return known
