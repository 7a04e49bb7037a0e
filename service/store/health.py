"""Is this database fit to keep promises: its version, its settings, its clock, and invariant I7 over its rows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from service.store import pooler

_SERVER = text("""
select current_setting('server_version_num')::int / 10000 as major, current_setting('server_version') as version,
       current_setting('transaction_isolation') as isolation, current_setting('fsync') as fsync,
       current_setting('statement_timeout') as statement_timeout,
       pg_is_in_recovery() as replica, current_database() as name,
       extract(epoch from clock_timestamp())::float8 as clock
""")

# I7 both ways; each statement sees one snapshot, and accept and settle write both tables in one commit.
_WITHOUT_OUTBOX = text("""
select count(*) from (
    select 1 from effects e left join outbox o on o.effect_id = e.id
    where e.state not in ('succeeded', 'failed') and o.effect_id is null limit 1000) missing
""")
_WITHOUT_EFFECT = text("""
select count(*) from (
    select 1 from outbox o join effects e on e.id = o.effect_id
    where e.state in ('succeeded', 'failed') limit 1000) left_over
""")


@dataclass(frozen=True, slots=True)
class Server:
    """What a Postgres says about itself. `clock` is its Unix time."""

    major: int
    version: str
    isolation: str
    fsync: str
    statement_timeout: str
    pooled: bool
    replica: bool
    name: str
    clock: float


def server(connection: Connection) -> Server:
    """Ask the server."""
    pooled = pooler.stands_before(pooler.driver_connection(connection))
    return Server(pooled=pooled, **connection.execute(_SERVER).mappings().one())


def unpaired(connection: Connection) -> tuple[int, int]:
    """I7, counted up to a thousand: unsettled effects without an outbox row, outbox rows of settled effects."""
    return int(connection.execute(_WITHOUT_OUTBOX).scalar_one()), int(connection.execute(_WITHOUT_EFFECT).scalar_one())
