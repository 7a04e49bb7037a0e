"""What an audit compares, side by side in temporary tables of one session: gone when it ends, seen by nobody else.

seen_intents, seen_refunds, seen_movements, seen_events    the provider's books of the window
seen_letters                                               the mail provider's, if it was given
own            our effects that were settled in the window, are unsettled, or are named by anything seen
money          what has moved: one row for each payment that took money
given_back     one row for each refund that did not fail
facts          of our journal, what speaks of doubt, of late answers, and of sends after the horizon
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import psycopg
from sqlalchemy import Connection, text

SEEN = """
create temporary table seen_intents (
    id text, created timestamptz, status text, amount bigint, received bigint, currency text, effect uuid, charge text,
    customer text);
create temporary table seen_refunds (
    id text, created timestamptz, status text, amount bigint, currency text, effect uuid, intent text, charge text);
create temporary table seen_movements (
    id text, created timestamptz, type text, amount bigint, fee bigint, currency text, source text, intent text,
    effect uuid, source_amount bigint, source_currency text);
create temporary table seen_events (
    id text, created timestamptz, type text, object_id text, intent text, effect uuid, key text, amount bigint,
    currency text);
create temporary table seen_letters (id text, created timestamptz, effect uuid, recipient text);
"""

# The lists shift while they are read, and a look-up may show again what a list has shown: each object counts once.
TIDY = """
delete from seen_intents a using seen_intents b where a.id = b.id and a.ctid < b.ctid;
delete from seen_refunds a using seen_refunds b where a.id = b.id and a.ctid < b.ctid;
delete from seen_movements a using seen_movements b where a.id = b.id and a.ctid < b.ctid;
delete from seen_events a using seen_events b where a.id = b.id and a.ctid < b.ctid;
analyze seen_intents; analyze seen_refunds; analyze seen_movements; analyze seen_events; analyze seen_letters;
"""

OWN = """
create temporary table own (
    id uuid primary key, tenant text, kind text, state text, attempt bigint, amount bigint, currency text,
    provider text, ref text, intent text, first_sent_at timestamptz, settled_at timestamptz, created_at timestamptz,
    lease_until timestamptz, waits_since timestamptz, in_doubt boolean, concerns uuid, policy text, receipt boolean,
    flagged boolean, customer text, recipient text, purged boolean, counted boolean);
"""

_COLUMNS = """
    e.id, e.tenant, e.kind, e.state, e.attempt, e.amount, e.currency, e.provider, e.provider_ref,
    case when e.kind = 'charge' then coalesce(e.provider_ref, e.progress ->> 'payment_intent') end,
    e.first_sent_at, e.settled_at, e.created_at, e.lease_until, coalesce(e.patience_from, e.first_sent_at), e.in_doubt,
    e.concerns, e.policy, e.request ->> 'receipt_email' is not null,
    coalesce((e.outcome ->> 'possible_duplicate')::boolean, false), e.request ->> 'customer',
    lower(e.request ->> 'to'), e.request is null
"""

_FILL = f"""
insert into own select {_COLUMNS}, e.settled_at >= :since and e.settled_at < :until
from effects e where e.id in (
    select id from effects where settled_at >= :since and settled_at < :until
    -- Written by the caller's process, so its id tells when: unsettled ones without an outbox row are found by it.
    union select id from effects where id >= cast(:first_id as uuid) and id < cast(:last_id as uuid)
    union select effect_id from outbox
    union select effect from seen_intents union select effect from seen_refunds union select effect from seen_movements
    union select effect from seen_events union select effect from seen_letters
    union select id from effects where provider = 'stripe' and provider_ref in (
        select id from seen_intents union select intent from seen_refunds union select intent from seen_movements
        union select id from seen_refunds))
"""

# The effects they act upon (a refund's charge of last year), those that act upon them (the capture of a charge, all
# refunds of one), and the PaymentIntent that they name.
_RELATED = f"""
insert into own select {_COLUMNS}, e.settled_at >= :since and e.settled_at < :until
from effects e where e.id in (
    select concerns from own where concerns is not null
    union select d.id from effects d join own c on d.concerns = c.id where c.kind = 'charge')
on conflict do nothing
"""

_INTENTS = """
update own d set intent = c.intent from own c where d.concerns = c.id and d.kind in ('refund', 'capture', 'cancel')
"""

_INDEXES = """
create index on own (intent); create index on own (ref); create index on own (concerns); analyze own
"""

_MONEY = """
create temporary table money as
    select id, effect, received as amount, currency, created, charge from seen_intents where status = 'succeeded'
    union all
    select coalesce(m.intent, m.source), m.effect, m.source_amount, m.source_currency, m.created, m.source
    from seen_movements m
    where m.type in ('charge', 'payment') and not exists (select from seen_intents i where i.id = m.intent);
create temporary table given_back as
    select * from seen_refunds where status not in ('failed', 'canceled');
create index on money (id); create index on money (effect);
analyze money; analyze given_back
"""

_FACTS = """
create temporary table facts as
    select o.id as effect, j.id, j.at, j.fact, j.attempt, j.evidence from own o join journal j on j.effect_id = o.id
    where j.fact in ('unknown', 'leased_out', 'absent', 'late_answer', 'parked')
       or j.at > o.first_sent_at + make_interval(secs => :horizon)
"""

# What we believe to have moved and nothing seen shows: it may be older than the window (a bank took days), so it is
# asked for by its id before anybody is accused.
_UNSEEN_INTENTS = """
select distinct intent as ref from own
where counted and state = 'succeeded' and kind in ('charge', 'capture', 'cancel') and intent > :after
  and (kind <> 'charge' or not exists (
        select from seen_movements m where m.intent = own.intent and m.type in ('charge', 'payment')))
  and (kind = 'charge' or not exists (select from seen_intents i where i.id = own.intent))
order by intent limit :limit
"""
_UNSEEN_REFUNDS = """
select distinct ref from own
where counted and state = 'succeeded' and kind = 'refund' and ref > :after and (
    not exists (select from seen_refunds r where r.id = own.ref)
    or not exists (select from seen_movements m where m.source = own.ref))
order by ref limit :limit
"""
UNSEEN = {"intent": text(_UNSEEN_INTENTS), "refund": text(_UNSEEN_REFUNDS)}
PAGE = 1000


class Window(NamedTuple):
    """[since, until), and the ids that a UUID version 7 made then can have."""

    since: datetime
    until: datetime

    def ids(self) -> dict[str, str]:
        """The first id of the window, and the first one after it."""
        return {"first_id": _first_id(self.since), "last_id": _first_id(self.until)}


def _first_id(at: datetime) -> str:
    made = f"{max(0, int(at.timestamp() * 1000)):012x}"
    return f"{made[:8]}-{made[8:]}-7000-8000-000000000000"


def prepare(connection: Connection) -> None:
    """Make the tables of this session."""
    _each(connection, SEEN + OWN)


def _each(connection: Connection, statements: str) -> None:
    for one in statements.split(";"):
        if one.strip():
            connection.exec_driver_sql(one)


def load(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Copy a batch of provider rows, all of one sort, into the table of that sort."""
    if not rows:
        return
    sort = type(rows[0])
    columns = ", ".join(sort._fields)  # type: ignore[attr-defined]
    raw = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    with raw.cursor() as cursor, cursor.copy(f"copy {_TABLES[sort.__name__]} ({columns}) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


_TABLES = {
    "Intent": "seen_intents",
    "Refund": "seen_refunds",
    "Movement": "seen_movements",
    "SeenEvent": "seen_events",
    "Letter": "seen_letters",
}


def tidy(connection: Connection) -> None:
    """Each object once, and statistics for the planner. Safe to repeat."""
    _each(connection, TIDY)


def take_own(connection: Connection, window: Window) -> int:
    """Take our side of the comparison, after the provider's has been read; returns how many effects it is."""
    asked = {"since": window.since, "until": window.until}
    connection.execute(text(_FILL), {**asked, **window.ids()})
    _each(connection, "analyze own")
    connection.execute(text(_RELATED), asked)
    connection.execute(text(_INTENTS))
    _each(connection, _INDEXES)
    return int(connection.exec_driver_sql("select count(*) from own").scalar_one())


def add_up(connection: Connection, *, horizon_seconds: float) -> None:
    """What has moved, and what the journal says of doubt; after everything has been loaded."""
    _each(connection, _MONEY)
    connection.execute(text(_FACTS), {"horizon": horizon_seconds})
    _each(connection, "analyze facts")


def unseen(connection: Connection, sort: str, *, after: str) -> list[str]:
    """References of ours beyond `after` that must be asked for one by one, a page of them."""
    return list(connection.execute(UNSEEN[sort], {"after": after, "limit": PAGE}).scalars())
