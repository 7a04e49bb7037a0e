"""Incarnations: which life of the database may send. A database that went back in time sends nothing by itself.

A promoted replica and a restore to an earlier point begin a new timeline (PostgreSQL: Continuous Archiving); a dump
that was loaded or a copy of a database is another database. The latest row of `incarnations` names the life that was
released, and the statement that claims compares the database with it: nobody has to notice anything in time. An older
copy on the same timeline is told by what this host has seen (`Seen`, kept outside the database).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

_NOW = """
    select (pg_current_wal_insert_lsn() - '0/0')::bigint as lsn, cast(c.system_identifier as text) as system,
           cast(d.oid as bigint) as oid, c.system_identifier || '/' || d.oid as database,
           ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint as timeline
    from pg_control_system() c, pg_database d where d.datname = current_database()
"""
_LATEST = """
    select id, system_identifier, database_oid, timeline, quarantined_at, quarantine_reason, released_at,
           (extract(epoch from released_at) * 1000000)::bigint as life
    from incarnations order by id desc limit 1
"""
_SAME_LIFE = """
    (i.released_at is not null and i.system_identifier = n.system and i.database_oid = n.oid
     and i.timeline = n.timeline)
"""
_NOTHING_FORGOTTEN = """
    (n.lsn >= cast(:seen_lsn as bigint) and exists (
        select 1 from effects where id = cast(:seen_effect as uuid) and attempt >= cast(:seen_attempt as bigint)))
"""
# A life is named by the moment of its release. A later one than this host has seen was released since; an earlier one
# has been left behind, so it is a copy from then.
_SEEN = f"""
    case when cast(:seen_database as text) is distinct from n.database or i.life > cast(:seen_life as bigint) then true
         when i.life < cast(:seen_life as bigint) then false
         else {_NOTHING_FORGOTTEN} end
"""

GATE = f"""
gate as materialized (
    select n.lsn, n.database, i.life, ({_SAME_LIFE} and {_SEEN}) is true as open
    from ({_NOW}) n left join ({_LATEST}) i on true
)
"""
"""A common table expression: one row, whose `open` says whether this database may send. Takes `Seen.parameters()`."""

LIFE = f"""
gate as materialized (
    select {_SAME_LIFE} is true as open from ({_NOW}) n left join ({_LATEST}) i on true
)
"""
"""The same without what a host has seen: for writes of an attempt that has passed the gate already."""

_LOOK = text(f"""
select n.lsn, n.database, n.system, n.timeline, i.id, i.life, i.timeline as released_timeline, i.quarantined_at,
       i.quarantine_reason, i.system_identifier = n.system as same_system, i.database_oid = n.oid as same_oid,
       {_SAME_LIFE} as same_life, {_SEEN} as not_older, {_NOTHING_FORGOTTEN} as nothing_forgotten,
       i.life < cast(:seen_life as bigint) as left_behind,
       cast(:seen_database as text) is not distinct from n.database as seen_before
from ({_NOW}) n left join ({_LATEST}) i on true
""")

_LAST_FACT = "coalesce(pg_sequence_last_value(pg_get_serial_sequence('journal', 'id')::regclass), 0)"

_BEGIN = text(f"""
insert into incarnations (follows, system_identifier, database_oid, timeline, last_fact,
                          released_at, released_by, release_reason)
select 0, n.system, n.oid, n.timeline, {_LAST_FACT}, clock_timestamp(), :actor, 'the first life'
from ({_NOW}) n
where not exists (select 1 from incarnations) and cast(:seen_database as text) is distinct from n.database
on conflict (follows) do nothing
""")

_QUARANTINE = text(f"""
insert into incarnations (follows, system_identifier, database_oid, timeline, last_fact,
                          quarantined_at, quarantine_reason)
select coalesce(i.id, 0), n.system, n.oid, n.timeline, {_LAST_FACT}, clock_timestamp(), :reason
from ({_NOW}) n left join ({_LATEST}) i on true
where i.id is null or i.released_at is not null
on conflict (follows) do nothing
""")

# What a release names is the database as it is now, even if it was promoted once more during its quarantine.
_MAY_RELEASE = text("update incarnations set released_at = released_at, released_by = released_by where false")
_RELEASE = text(f"""
update incarnations i set system_identifier = n.system, database_oid = n.oid, timeline = n.timeline,
    released_at = greatest(clock_timestamp(), (select max(released_at) + interval '1 microsecond' from incarnations)),
    released_by = :actor, release_reason = :reason, counts = cast(:counts as jsonb)
from ({_NOW}) n
where i.id = :id and i.released_at is null and i.id = (select max(id) from incarnations)
""")

_OPEN_QUARANTINE = text("""
select id, quarantined_at, quarantine_reason, last_fact,
       extract(epoch from clock_timestamp() - quarantined_at)::float8 as age_seconds
from incarnations where id = (select max(id) from incarnations) and released_at is null
""")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one host remembers of the database outside of it: how far its log was at the last claim, and that claim."""

    database: str | None = None
    life: int = 0
    lsn: int = 0
    effect: str | None = None
    attempt: int = 0

    def parameters(self) -> dict[str, Any]:
        """As `GATE` takes them."""
        return {f"seen_{name}": getattr(self, name) for name in self.__slots__}


NOTHING = Seen()


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether this database may send. `reason` says why not, `since` whether somebody has written that down."""

    open: bool
    reason: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The quarantine that stands. `last_fact`: what the journal knows from later on was accepted in quarantine."""

    id: int
    since: datetime
    reason: str
    last_fact: int
    age_seconds: float


def look(connection: Connection, seen: Seen = NOTHING) -> Standing:
    """How the database stands, for people and for a relay; writes nothing. A claim looks for itself."""
    row = connection.execute(_LOOK, seen.parameters()).one()
    if row.id is None:
        if row.seen_before:
            return Standing(open=False, reason="this host knows the database, and it has forgotten its own life")
        return Standing(open=True)  # not begun: the first claim begins it
    if row.life is None:
        return Standing(open=False, reason=row.quarantine_reason, since=row.quarantined_at)
    if row.same_life and row.not_older:
        return Standing(open=True)
    return Standing(open=False, reason=_why(row, seen))


def _why(row: Any, seen: Seen) -> str:
    if not (row.same_system and row.same_oid):
        return "this is another server or database than the one that was released: a loaded dump, a clone, an upgrade"
    if row.timeline != row.released_timeline:
        return (
            f"the database is on timeline {row.timeline}, the released one is {row.released_timeline}: "
            "a replica was promoted or a backup restored"
        )
    if row.left_behind:
        return "the database is in a life that this host has seen end: an older copy"
    if row.lsn < seen.lsn:
        return f"the database's log is at {row.lsn}, this host has seen {seen.lsn}: an older copy"
    return f"the database has forgotten attempt {seen.attempt} of effect {seen.effect}: an older copy"


def begin(connection: Connection, seen: Seen = NOTHING, *, actor: str) -> bool:
    """Begin the first life of a database that has none and that this host does not know; True if this did it."""
    return connection.execute(_BEGIN, {"seen_database": seen.database, "actor": actor}).rowcount == 1


def quarantine(connection: Connection, reason: str) -> bool:
    """Write down that the database is in quarantine; False when that is written already."""
    return connection.execute(_QUARANTINE, {"reason": reason}).rowcount == 1


def quarantined(connection: Connection) -> Quarantine | None:
    """The quarantine that stands, None when there is none."""
    row = connection.execute(_OPEN_QUARANTINE).one_or_none()
    if row is None:
        return None
    return Quarantine(row.id, row.quarantined_at, row.quarantine_reason, row.last_fact, row.age_seconds)


def may_release(connection: Connection) -> None:
    """Fails as a release would, for a login that has no right to it, and changes nothing."""
    connection.execute(_MAY_RELEASE)


def release(connection: Connection, id_: int, *, actor: str, reason: str, counts: Mapping[str, Any]) -> bool:
    """Let the database as it is now send again; False when it is not the latest quarantine any more."""
    given = {"id": id_, "actor": actor, "reason": reason, "counts": json.dumps(dict(counts), default=str)}
    return connection.execute(_RELEASE, given).rowcount == 1
