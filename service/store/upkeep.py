"""Whether the tables are in good repair: their indexes whole, their dead rows taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from service.store.control_tables import metadata

_INDEXES = text("""
select c.relname as name, i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
where c.relnamespace = 'public'::regnamespace
""")
_TABLES = ("effects", "outbox")
_DEAD = text("""
select s.relname as name, s.n_dead_tup as dead,
       -- Kept as it was written: off, false, no, 0.
       exists (select 1 from pg_options_to_table(c.reloptions)
               where option_name = 'autovacuum_enabled' and not option_value::boolean)
           or not current_setting('autovacuum')::boolean as off
from pg_stat_user_tables s join pg_class c on c.oid = s.relid where s.relname = any(:tables)
""")
_OLDEST = text("""
select pid, extract(epoch from clock_timestamp() - xact_start)::float8 as seconds from pg_stat_activity
where backend_xmin is not null and datname = current_database() and pid <> pg_backend_pid()
order by xact_start limit 1
""")


@dataclass(frozen=True, slots=True)
class Vacuum:
    """Dead rows by table, tables without autovacuum, and the oldest open snapshot (seconds, its backend)."""

    dead: Mapping[str, int]
    off: Sequence[str]
    oldest_snapshot_seconds: float
    pid: int | None


def indexes(connection: Connection) -> tuple[list[str], list[str]]:
    """The names of indexes that are missing, and of those that are there and not valid."""
    there = {row.name: row.valid for row in connection.execute(_INDEXES)}
    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    return sorted(wanted - set(there)), sorted(name for name, valid in there.items() if not valid)


def vacuum(connection: Connection) -> Vacuum:
    """What autovacuum has left behind on the tables that change most."""
    rows = connection.execute(_DEAD, {"tables": list(_TABLES)}).all()
    oldest = connection.execute(_OLDEST).first()
    return Vacuum(
        {row.name: int(row.dead) for row in rows},
        [row.name for row in rows if row.off],
        float(oldest.seconds or 0.0) if oldest else 0.0,
        oldest.pid if oldest else None,
    )
