"""Audits: one at a time, each a row; the last finished one without a gap before it is the cursor.

An audit works on a connection of its own, for minutes, without a transaction that stays open: a snapshot held so long
would keep vacuum from the outbox. An audit that is interrupted leaves its row unfinished, and so no cursor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from service import settings
from service.core.errors import ValidationError
from service.store import journal, pooler
from service.store.audit_checks import HEADLINE, LEDGER_SUMS, Check
from service.store.database import make_engine, reachable

# A question over a hundred thousand effects takes seconds, over ten million minutes; the tables are ours alone.
STATEMENT_TIMEOUT_SECONDS = 1800
_ADVISORY_LOCK = 0x4155444954  # "AUDIT"

# The house's plans go by index and forever; these questions are asked once, of whole tables.
_SESSION = f"""
set statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'; set enable_seqscan = on; set plan_cache_mode = auto;
set work_mem = '64MB'; set temp_buffers = '32MB'; set client_min_messages = warning
"""

_NOW = text("select now()")
_CURSOR = text("""
select cast(counts ->> 'cursor' as timestamptz) from audits where finished_at is not null order by id desc limit 1
""")
_FIRST = text("select created_at from effects order by id limit 1")

_BEGIN = text("""
insert into audits (since, until, actor) values (:since, :until, :actor) returning id
""")

# A window that leaves a gap behind the last cursor does not move it: what lies in the gap is still to be looked at.
_FINISH = text("""
update audits set finished_at = clock_timestamp(), counts = cast(:counts as jsonb) || jsonb_build_object('cursor',
    case when cast(:cursor as timestamptz) is null or since <= cast(:cursor as timestamptz)
         then greatest(until, cast(:cursor as timestamptz)) else cast(:cursor as timestamptz) end)
where id = :id
""")

_WRITE = """
with found as materialized ({sql}), one as (
    select distinct on (subject) * from found order by subject, at desc nulls last
), written as (
    insert into breaks (class, subject, effect_id, provider, provider_ref, amount, currency, detail,
                        first_audit, last_audit)
    select :class, subject, effect_id, provider, provider_ref, amount, currency,
           detail || case when at is null then '{{}}' else jsonb_build_object('at', at) end, :audit, :audit
    from one order by subject
    on conflict (class, subject) where closed_at is null do update set
        effect_id = coalesce(excluded.effect_id, breaks.effect_id),
        provider = coalesce(excluded.provider, breaks.provider),
        provider_ref = coalesce(excluded.provider_ref, breaks.provider_ref),
        amount = coalesce(excluded.amount, breaks.amount), currency = coalesce(excluded.currency, breaks.currency),
        detail = breaks.detail || excluded.detail, first_audit = coalesce(breaks.first_audit, excluded.first_audit),
        last_audit = excluded.last_audit, seen_at = clock_timestamp()
    returning (xmax = 0) as is_new
)
select count(*) as found, count(*) filter (where is_new) as fresh from written
"""

# The times of a subject tell which later audits have looked at it; what has no time (stuck, a sum) every one looks at.
_LISTED = """
select b.id, b.class, b.subject, cast(b.effect_id as text) as effect_id, b.provider, b.provider_ref, b.amount,
       b.currency, b.detail, b.first_audit, b.last_audit, b.found_at, b.seen_at, b.owner, b.note, b.closed_at,
       b.closed_by, extract(epoch from clock_timestamp() - b.found_at)::float8 as age_seconds,
       b.last_audit is not null and exists (
           select from audits a where a.finished_at is not null and a.id > b.last_audit
             and coalesce(cast(b.detail ->> 'at' as timestamptz) >= a.since
                          and cast(b.detail ->> 'at' as timestamptz) < a.until, true)) as not_seen_again
from breaks b where b.id > :after {where} order by b.id limit :limit
"""

_UNCHECKED = text("select count(*) from own where counted and purged")
_ASSIGN = text("update breaks set owner = :owner where id = :id and closed_at is null")
_NOTE = text("""
update breaks set note = case when note is null then '' else note || e'\\n' end || :note
where id = :id and closed_at is null
""")


@contextmanager
def session() -> Iterator[Connection]:
    """The one audit that is under way: a connection of its own, in autocommit, gone with its tables at the end.

    Raises ValidationError while another audit runs, DependencyUnavailable when Postgres is away, SettingsError behind
    a pooler.
    """
    made = make_engine(settings.load().database(), pooled=False, isolation="AUTOCOMMIT")
    try:
        with reachable(), made.connect() as connection:
            pooler.refuse(connection, "an audit")
            for statement in _SESSION.strip().split(";"):
                connection.exec_driver_sql(statement)
            if not connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": _ADVISORY_LOCK}).scalar_one():
                raise ValidationError("another audit is under way here: wait for it, or stop it", field="audit")
            yield connection
    finally:
        made.dispose()


def now(connection: Connection) -> datetime:
    """The database's clock."""
    found: datetime = connection.execute(_NOW).scalar_one()
    return found


def cursor(connection: Connection) -> datetime | None:
    """Until when everything has been audited; None before the first audit."""
    return connection.execute(_CURSOR).scalar_one_or_none()


def first_effect(connection: Connection) -> datetime | None:
    """When the first effect was accepted."""
    return connection.execute(_FIRST).scalar_one_or_none()


def begin(connection: Connection, since: datetime, until: datetime, *, actor: str) -> int:
    """The audit's row; unfinished until `finish`."""
    return int(connection.execute(_BEGIN, {"since": since, "until": until, "actor": actor}).scalar_one())


def finish(connection: Connection, audit: int, counts: Mapping[str, Any], *, before: datetime | None) -> None:
    """The comparison is complete: from now on the row may be the cursor; `before` is where that stood."""
    connection.execute(_FINISH, {"id": audit, "counts": json.dumps(counts, default=str), "cursor": before})


def check(connection: Connection, one: Check, audit: int, asked: Mapping[str, Any]) -> tuple[int, int]:
    """Ask one question and keep its answers as breaks; how many there are, and how many of them are new."""
    query = text(_WRITE.format(sql=one.sql))
    row = connection.execute(query, {**asked, "class": one.name, "audit": audit}).one()
    return int(row.found), int(row.fresh)


def headline(connection: Connection, asked: Mapping[str, Any]) -> dict[int, int]:
    """How many effects have how many money objects at the provider; all must have one."""
    return {int(row.objects): int(row.effects) for row in connection.execute(text(HEADLINE), asked)}


def unchecked(connection: Connection, since: datetime) -> dict[str, Any]:
    """What this audit cannot check any more: requests that were purged, and facts that went with their month."""
    purged = connection.execute(_UNCHECKED).scalar_one()
    kept_from = journal.kept_from(connection)
    dropped = {"no_facts_before": kept_from} if kept_from and kept_from > since else {}
    return {**({"requests_purged": int(purged)} if purged else {}), **dropped}


def sums(connection: Connection, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Minor units by currency: what we settled, what the account shows, and its fees."""
    return [dict(row) for row in connection.execute(text(f"{LEDGER_SUMS} order by currency"), asked).mappings()]


def listed(
    connection: Connection,
    *,
    class_: str | None = None,
    owner: str | None = None,
    audit: int | None = None,
    closed: bool = False,
    after: int = 0,
    limit: int = 1000,
) -> Sequence[dict[str, Any]]:
    """Up to `limit` breaks beyond the id `after`, oldest first; the open ones, with `closed` all."""
    where = "" if closed else "and b.closed_at is null"
    wanted = {"class": class_, "owner": owner, "last_audit": audit}
    for name in [name for name, value in wanted.items() if value is not None]:
        where += f" and b.{name} = :{name}"
    query = text(_LISTED.format(where=where))
    return [dict(row) for row in connection.execute(query, {**wanted, "after": after, "limit": limit}).mappings()]


def of_audit(connection: Connection, audit: int) -> Iterator[dict[str, Any]]:
    """Every open break that one audit found, a page at a time."""
    after = 0
    while page := listed(connection, audit=audit, after=after):
        yield from page
        after = page[-1]["id"]


def assign(connection: Connection, break_id: int, owner: str) -> bool:
    """Say whose an open break is; False when there is no such one."""
    return connection.execute(_ASSIGN, {"id": break_id, "owner": owner}).rowcount == 1


def note(connection: Connection, break_id: int, words: str) -> bool:
    """Add a line to an open break; False when there is no such one."""
    return connection.execute(_NOTE, {"id": break_id, "note": words}).rowcount == 1
