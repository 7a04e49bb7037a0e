"""Run migrations one at a time, each in its own transaction, never waiting long for a lock that writers hold."""

from __future__ import annotations

from time import sleep

from alembic import context
from sqlalchemy import Connection, text

from service import settings
from service.store import control_tables, pooler
from service.store.database import make_engine

# A migration that cannot get its lock gives up before the callers queueing behind it notice; run it again later.
LOCK_TIMEOUT_MILLISECONDS = 3_000
STATEMENT_TIMEOUT_MILLISECONDS = 60_000
_ADVISORY_LOCK = 0x436F756E746572  # "Counter": two upgrades at once take turns
_TURN_SECONDS = 0.1


def _ours(name: str | None, type_: str, _parents: object) -> bool:
    """A month of the journal comes and goes by itself: no table of the code's."""
    return type_ != "table" or not (name or "").startswith("journal_")


def _configure(**options: object) -> None:
    context.configure(
        target_metadata=control_tables.metadata,
        include_name=_ours,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=False,
        **options,  # type: ignore[arg-type]
    )


def _run_online(connection: Connection) -> None:
    pooler.refuse(connection, "a migration")
    # Asked for again and again, not waited for: an open statement would keep an index from being built concurrently.
    while not connection.execute(text(f"select pg_try_advisory_lock({_ADVISORY_LOCK})")).scalar_one():
        connection.rollback()
        sleep(_TURN_SECONDS)
    connection.execute(text(f"set lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}"))
    connection.execute(text(f"set statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}"))
    connection.commit()
    try:
        _configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text(f"select pg_advisory_unlock({_ADVISORY_LOCK})"))
        connection.commit()


def _run_offline() -> None:
    _configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.execute(f"set lock_timeout = {LOCK_TIMEOUT_MILLISECONDS}")
        context.execute(f"set statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
        context.run_migrations()


if context.is_offline_mode():
    _run_offline()
else:
    engine = make_engine(context.config.attributes.get("url") or settings.load().database(), pooled=False)
    with engine.connect() as connection:
        _run_online(connection)
    engine.dispose()
