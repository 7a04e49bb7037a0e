"""Checks of the database itself: reachable, fit, at the right version, its indexes whole, its tables in good repair."""

from __future__ import annotations

import time
from collections.abc import Iterator

from service.cli.checks.check import FIXES, Check
from service.engine import quarantine
from service.settings import Settings
from service.store import health, schema, upkeep
from service.store.database import statement
from service.store.watermark import Watermark

POSTGRES_MAJOR_MIN = 14
# Leases and countdowns run on the database's clock, eta on the caller's: a second between them is harmless, a minute
# is not.
SKEW_SECONDS_MAX = 5.0
# Dead rows in the outbox that an autovacuum at work would have taken away long ago.
DEAD_ROWS_MAX = 200_000
# A transaction that stands open for so long keeps every dead row since then from being taken away.
SNAPSHOT_SECONDS_MAX = 1800.0


def database(settings: Settings) -> Check:
    """It answers."""
    settings.database()
    with statement() as connection:
        server = health.server(connection)
    return Check(
        "database",
        ok=True,
        found=f"Postgres {server.version}, database {server.name}",
        meaning="",
        fix=FIXES["database"],
    )


def server() -> Iterator[Check]:
    """It is new enough, writable, durable, and its clock is right."""
    with statement() as connection:
        before = time.time()
        found = health.server(connection)
        skew = found.clock - (before + time.time()) / 2
    yield Check(
        "version",
        ok=found.major >= POSTGRES_MAJOR_MIN,
        found=found.version,
        meaning=f"Older than Postgres {POSTGRES_MAJOR_MIN}: statements of ours do not run there.",
        fix="upgrade Postgres",
    )
    yield Check(
        "writable",
        ok=not found.replica,
        found="a replica" if found.replica else "the primary",
        meaning="Nothing can be accepted on a replica.",
        fix="point COUNTERFOIL_DATABASE_URL at the primary",
    )
    yield Check(
        "isolation",
        ok=found.isolation == "read committed",
        found=found.isolation,
        meaning="Claims and settlements are guarded for READ COMMITTED; stricter levels would fail them at random.",
        fix="remove default_transaction_isolation for this role, or a pooler's override",
    )
    yield Check(
        "durable",
        ok=found.fsync == "on",
        found=f"fsync {found.fsync}",
        meaning="After a power cut committed effects can be gone.",
        fix="set fsync = on",
    )
    between = "a pooler" if found.pooled else "a direct connection"
    yield Check(
        "limits",
        ok=found.statement_timeout != "0",
        found=f"{between}, statement_timeout {found.statement_timeout}",
        meaning="The pooler drops our time limits: a statement that hangs is waited for without end.",
        fix="alter role … set statement_timeout = '15s', lock_timeout = '5s', "
        "idle_in_transaction_session_timeout = '15s', jit = off; or connect directly",
    )
    yield Check(
        "clock",
        ok=abs(skew) <= SKEW_SECONDS_MAX,
        found=f"{skew:+.2f} s from here",
        meaning="This machine and the database disagree about the time: an eta will be off by as much.",
        fix="run an NTP client on both",
    )


def tables() -> Check:
    """It is at the revision of this code."""
    with statement() as connection:
        there = schema.database_head(connection)
    return Check(
        "tables",
        ok=there == schema.code_head(),
        found=f"migration {there or 'none'}",
        meaning=f"This version needs {schema.code_head()}.",
        fix="counterfoil db upgrade",
    )


def life(settings: Settings) -> Check:
    """It is the one that was released to send."""
    watermark = Watermark(settings.state_dir)
    watermark.seen()  # says so when the state directory cannot be used: then nothing is sent
    watermark.close()
    found = quarantine.standing(settings)
    return Check(
        "life",
        ok=found.open,
        found=quarantine.sentence(found),
        meaning="The database went back in time or is another one: effects are accepted and shown, and none is sent.",
        fix="counterfoil recover; docs/recover.md",
    )


def indexes() -> Check:
    """Each index that this version knows is there and valid."""
    with statement() as connection:
        missing, invalid = upkeep.indexes(connection)
    wrong = [f"missing: {', '.join(missing)}"] if missing else []
    wrong += [f"invalid: {', '.join(invalid)}"] if invalid else []
    return Check(
        "indexes",
        ok=not wrong,
        found="; ".join(wrong) or "all are there and valid",
        meaning="What they find is read through instead: claims and lists get slower with every settled effect.",
        fix="counterfoil db upgrade; drop an invalid one first (its build was interrupted): drop index concurrently …",
    )


def bloat() -> Check:
    """Autovacuum does its work on the tables that change most."""
    with statement() as connection:
        found = upkeep.vacuum(connection)
    wrong = [f"{table} has autovacuum off" for table in found.off]
    wrong += [f"{table} has {dead:,} dead rows" for table, dead in found.dead.items() if dead > DEAD_ROWS_MAX]
    if found.oldest_snapshot_seconds > SNAPSHOT_SECONDS_MAX:
        wrong.append(f"a transaction is open for {found.oldest_snapshot_seconds / 60:.0f} minutes (pid {found.pid})")
    return Check(
        "bloat",
        ok=not wrong,
        found="; ".join(wrong) or f"{sum(found.dead.values()):,} dead rows",
        meaning="Dead rows pile up: each claim and take reads past them.",
        fix="turn autovacuum on for effects and outbox; end what holds a snapshot: select pg_terminate_backend(PID)",
    )
