"""One engine per process, made after the fork; short transactions; the database's own clock."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    TimeoutError,  # noqa: A004 - SQLAlchemy's own, of a pool whose connections are all in use
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from service import settings
from service.core.errors import DependencyUnavailable, SettingsError
from service.store import pooler, tenancy

POOL_SIZE = 8  # claims and settlements are combined, so a process rarely needs more than three at a time
POOL_OVERFLOW = 24  # the API's threads
# Longer than any statement of ours takes on a busy server, far shorter than the lease: a statement that hangs must
# not outlive its attempt.
STATEMENT_TIMEOUT_MILLISECONDS = 15_000
LOCK_TIMEOUT_MILLISECONDS = 5_000
# No transaction of ours waits for anything but Postgres. One that stands still within one (stopped, its machine frozen,
# its connection alive) would keep an effect's row from its heir for as long as it stands, whatever its lease says.
IDLE_IN_TRANSACTION_MILLISECONDS = 15_000
CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 10  # for a connection that others of this process have: as long as two lock timeouts

Caller = Session | Connection
"""Whose transaction an accept joins."""

SchemaRefused = (IntegrityError, DataError)
"""A constraint or trigger of the schema said no: a contradiction, never an outage."""

UNREACHABLE = (OperationalError, InterfaceError)
"""What SQLAlchemy raises when the server is away, restarting or out of connections."""

_AWAY = {
    psycopg.errors.ReadOnlySqlTransaction: "takes no writes",  # a replica before its promotion, a backup being restored
    psycopg.errors.IdleInTransactionSessionTimeout: "has hung up",
    psycopg.errors.TransactionTimeout: "has hung up",
}
"""Outages that the driver files under bugs, because their codes are those of invalid transaction states."""

_USED = "counterfoil_used"  # in what SQLAlchemy keeps of a connection until it is replaced
_OTHER_TABLES = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
"""New code before `db upgrade`, or old code after a downgrade: it waits for its tables, as for a server."""


def make_engine(url: str, *, pooled: bool = True, isolation: str = "READ COMMITTED") -> Engine:
    """An engine for `url` (postgresql://…). READ COMMITTED: the guards are unique keys and conditional updates."""
    head, mark, tail = url.partition("://")
    if not mark or not head.startswith("postgres"):
        raise SettingsError("COUNTERFOIL_DATABASE_URL must look like postgresql://user:password@host:5432/name")
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT_MILLISECONDS} -c lock_timeout={LOCK_TIMEOUT_MILLISECONDS}"
        f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MILLISECONDS}"
        # Our statements have one good plan each, whatever their parameters: planning them anew cost more than running.
        # And that plan goes by index: a plan made while a table was small must not read the whole ledger later.
        " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
    )
    connect = {
        "application_name": "counterfoil",
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": options,
        # A server that vanished without a word (power, network) is noticed within half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    pool = {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_timeout": POOL_TIMEOUT_SECONDS,
        "pool_use_lifo": True,  # the connection that has prepared the statements is the one that is used again
    }
    made = create_engine(
        f"postgresql+psycopg://{tail}",
        isolation_level=isolation,
        connect_args=connect,
        hide_parameters=True,  # an error's text goes to logs, and parameters are requests with their addresses
        **(pool if pooled else {"poolclass": NullPool}),
    )
    event.listen(made, "do_connect", pooler.connect)
    event.listen(made, "checkout", _refuse_dead)
    return made


def _refuse_dead(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Replace a pooled connection whose server has gone, without the round trip (and the commit) of a ping.

    An idle connection has nothing to read; if there is something, it is the end of the stream or the server's
    farewell. What this misses, a server that vanished without a word, ends at the TCP timeouts above.
    """
    if not record.info.get(_USED):
        # SQLAlchemy replaces a refused connection once; refuse that one too, and it blames its caller
        # (InvalidRequestError). One made just now and dead already says so at its first statement.
        record.info[_USED] = True
        return
    raw = cast("psycopg.Connection[Any]", connection)
    if raw.closed or _readable(raw.fileno()):
        raise DisconnectionError


def _readable(fileno: int) -> bool:
    waiting = select.poll()  # not select(), which knows no file above 1023
    waiting.register(fileno, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(waiting.poll(0))


@cache
def _engine_of(pid: int, isolation: str) -> Engine:  # noqa: ARG001 - a child never uses its parent's sockets
    return make_engine(settings.load().database(), isolation=isolation)


def engine() -> Engine:
    """This process's engine for transactions. Raises SettingsError when no database is set."""
    return _engine_of(os.getpid(), "READ COMMITTED")


@contextmanager
def transaction() -> Iterator[Connection]:
    """One short transaction of our own: committed at the end, rolled back on any exception.

    Raises DependencyUnavailable when the database cannot be reached.
    """
    with reachable(), engine().begin() as connection:
        tenancy.tell(connection)
        yield connection


@contextmanager
def transaction_at(url: str) -> Iterator[Connection]:
    """One transaction with another login than this process's. Raises DependencyUnavailable."""
    other = make_engine(url, pooled=False)
    try:
        with reachable(), other.begin() as connection:
            yield connection
    finally:
        other.dispose()


@contextmanager
def statement() -> Iterator[Connection]:
    """A connection in autocommit: each statement is its own transaction, without the two round trips around it.

    For a login that row-level security binds to one tenant it is one transaction that says whose it is.
    """
    with (
        reachable(),
        _engine_of(os.getpid(), "AUTOCOMMIT").connect() as connection,
        tenancy.told(connection),
    ):
        yield connection


def connection_of(caller: Caller) -> Connection:
    """The connection that the caller's transaction runs on."""
    return caller.connection() if isinstance(caller, Session) else caller


@contextmanager
def reachable() -> Iterator[None]:
    """Turn the driver's ways of saying "the server is away" into one sentence a person can act on."""
    try:
        yield
    except UNREACHABLE as error:
        raise DependencyUnavailable(f"Postgres does not answer: {_first_line(error)}") from error
    except InternalError as error:
        for kind, what in _AWAY.items():
            if isinstance(error.orig, kind):
                raise DependencyUnavailable(f"Postgres {what}: {_first_line(error)}") from error
        raise
    except ProgrammingError as error:
        if isinstance(error.orig, _OTHER_TABLES):
            sentence = "the database lacks what this version needs; run `counterfoil db upgrade`"
            raise DependencyUnavailable(f"{sentence} ({_first_line(error)})") from error
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            sentence = "the login in COUNTERFOIL_DATABASE_URL may not do this; see `counterfoil db roles`"
            raise DependencyUnavailable(f"{sentence} ({_first_line(error)})") from error
        raise
    except TimeoutError as error:
        raise DependencyUnavailable(
            f"Postgres does not answer: all connections of this process have been in use for {POOL_TIMEOUT_SECONDS} s"
        ) from error


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0][:200]
