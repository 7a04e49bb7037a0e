"""What the schema forbids, as the catalogue of a migrated database tells it, so that a new object is never forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import errors

from tests.guards.bad_writes import BAD, FILLED, FILLS, QUICK_ONLY, Hand

_CONSTRAINTS = """
    select c.conrelid::regclass::text, c.conname, c.contype::text,
           (select a.attname::text from pg_attribute a where a.attrelid = c.conrelid and a.attnum = c.conkey[1])
    from pg_constraint c
    where c.connamespace = 'public'::regnamespace and c.conrelid <> 0 and c.conrelid::regclass::text <> 'alembic_version'
      -- A partition has its table's, under other names; what it has of its own, it has by hand.
      and not exists (select from pg_class t where t.oid = c.conrelid and t.relispartition)
"""
_TRIGGERS = """
    select tgrelid::regclass::text, tgname, 'trigger', null from pg_trigger where not tgisinternal and tgparentid = 0
"""
_INDEXES = """
    select i.indrelid::regclass::text, i.indexrelid::regclass::text, case when i.indisunique then 'unique' else 'index' end, null
    from pg_index i join pg_class t on t.oid = i.indrelid
    where t.relnamespace = 'public'::regnamespace and not t.relispartition
      and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid)
"""
_KEY_OF = """
    select c.conname from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any(c.conkey)
    where c.contype = 'p' and c.conrelid = %s::regclass and a.attname = %s
"""
_IS_IDENTITY = "select attidentity <> '' from pg_attribute where attrelid = %s::regclass and attname = %s"


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of the schema that may forbid something."""

    table: str
    name: str
    sort: str
    column: str | None

    @property
    def key(self) -> str:
        """Its name among the bad writes."""
        return f"trigger {self.name}" if self.sort == "trigger" else self.name

    @property
    def is_not_null(self) -> bool:
        return self.sort == "n"


def things(connection: psycopg.Connection) -> list[Thing]:
    """All of them."""
    query = f"{_CONSTRAINTS} union all {_TRIGGERS} union all {_INDEXES} order by 1, 2"
    return [Thing(*row) for row in connection.execute(query)]


def unlisted(found: list[Thing]) -> list[str]:
    """Objects that no list knows: neither of bad writes, nor of what fills in, nor of plain indexes."""
    return [t.key for t in found if not t.is_not_null and t.key not in {**BAD, **FILLS, **QUICK_ONLY}]


def fills_in(connection: psycopg.Connection, thing: Thing) -> tuple[bool, bool]:
    """Whether its write is taken with the object, and whether it is without it. Leaves nothing behind."""
    _, write = FILLS[thing.key]
    with connection.transaction(force_rollback=True):
        hand = Hand(connection)
        with_it = _taken(hand, write)
        _drop(connection, thing)
        return with_it, _taken(hand, write)


def _taken(hand: Hand, write: Callable[[Hand], object]) -> bool:
    try:
        with hand.connection.transaction(force_rollback=True):
            write(hand)
    except errors.IntegrityError:
        return False
    return True


def is_needed(connection: psycopg.Connection, thing: Thing) -> tuple[bool, bool]:
    """Whether the bad write is refused with the object, and whether it is without it. Leaves nothing behind."""
    with connection.transaction(force_rollback=True):
        hand = Hand(connection)
        if not thing.is_not_null:
            BAD[thing.key].before(hand)
        elif thing.column in FILLED:
            hand.do(f"alter table {thing.table} disable trigger user")  # as a subscriber, which it does not fill in for
        with_it = _refused(hand, thing)
        _drop(connection, thing)
        return with_it, _refused(hand, thing)


def _refused(hand: Hand, thing: Thing) -> bool:
    try:
        with hand.connection.transaction(force_rollback=True):
            if thing.is_not_null:
                assert thing.column
                _without(hand, thing.table, thing.column)
            else:
                BAD[thing.key].write(hand)
    except errors.IntegrityError as error:
        named = error.diag.constraint_name or error.diag.column_name or str(error)
        named = re.sub(r"^journal_(first|rest|\d{4}_\d\d)_", "journal_", named)  # a month's, by its table's name
        return thing.name in named or thing.column == named or thing.sort == "trigger"
    except errors.GeneratedAlways:
        return True
    return False


def _without(hand: Hand, table: str, column: str) -> None:
    hand.put(table, **{column: None})


def _drop(connection: psycopg.Connection, thing: Thing) -> None:
    table, name = thing.table, thing.name
    if thing.sort == "trigger":
        connection.execute(f"drop trigger {name} on {table}")
    elif thing.sort in ("unique", "index"):
        connection.execute(f"drop index {name}")
    elif thing.is_not_null:
        # A primary key implies it and an identity fills it in: both go first, or it cannot.
        for (key,) in connection.execute(_KEY_OF, (table, thing.column)).fetchall():
            connection.execute(f"alter table {table} drop constraint {key} cascade")
        if connection.execute(_IS_IDENTITY, (table, thing.column)).fetchone() == (True,):
            connection.execute(f"alter table {table} alter column {thing.column} drop identity")
        connection.execute(f"alter table {table} alter column {thing.column} drop not null")
    else:
        connection.execute(f"alter table {table} drop constraint {name} cascade")
