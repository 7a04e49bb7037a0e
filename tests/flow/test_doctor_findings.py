"""Each check of `counterfoil doctor` is seen failing: the server, its indexes, the rows, the broker, the providers.

What no server here would do by itself (an old version, a replica) is made by a wire that changes a word of our question.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

import psycopg
import pytest

from service.store import circuits
from service.store.database import make_engine
from tests.flow import test_doctor_checks  # its marks are counted too
from tests.flow.doctoring import SHOWN, changing, check, failing, shows, spoiled
from tests.flow.doors import environment, park, settle
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures
from tests.server import Server

assert test_doctor_checks


def closed_port() -> int:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


def padded(one: bytes, instead: bytes) -> dict[bytes, bytes]:
    return {one: instead.ljust(len(one))}


# --- the server ---------------------------------------------------------------------------------------------------


@shows("database")
def test_a_database_that_does_not_answer(run: Run) -> None:
    nowhere = f"postgresql://u:secret-word@127.0.0.1:{closed_port()}/x"
    failing(
        run, "database", found="not answer", means="could not be looked at", fix="counterfoil up", database_url=nowhere
    )


ON_THE_WAY = {
    "version": (
        padded(b"current_setting('server_version_num')::int / 10000", b"13")
        | padded(b"current_setting('server_version')", b"'13.20'"),
        ("13.20", "Older than Postgres 14", "upgrade Postgres"),
    ),
    "writable": (
        padded(b"pg_is_in_recovery()", b"true"),
        ("a replica", "Nothing can be accepted", "point COUNTERFOIL_DATABASE_URL at the primary"),
    ),
    "durable": (
        padded(b"current_setting('fsync')", b"'off'"),
        ("fsync off", "power cut", "set fsync = on"),
    ),
    "limits": (
        {b"statement_timeout=15000": b"statement_timeout=00000"},
        ("statement_timeout 0", "without end", "set statement_timeout = '15s'"),
    ),
    "bloat": (
        padded(b"clock_timestamp() - xact_start", b"interval '31 minutes'"),
        ("a transaction is open for 31 minutes (pid ", "Dead rows pile up", "pg_terminate_backend"),
    ),
}  # fmt: skip


@shows(*ON_THE_WAY)
@pytest.mark.parametrize("name", ON_THE_WAY)
def test_a_server_that_is_not_fit_is_told_with_its_fix(run: Run, url: str, name: str) -> None:
    changes, (found, means, fix) = ON_THE_WAY[name]
    with psycopg.connect(url) as somebody:  # whose snapshot stands open
        somebody.execute("set transaction isolation level repeatable read")
        somebody.execute("select count(*) from effects")
        with changing(url, changes) as there:
            failing(run, name, found=found, means=means, fix=fix, database_url=there)


@shows("clock")
def test_a_clock_that_is_wrong_here(url: str) -> None:
    if (faketime := shutil.which("faketime")) is None:
        pytest.skip("faketime is not on PATH: apt-get install faketime, then run this again")
    line = [faketime, "-f", "+1h", sys.executable, "-m", "service", "doctor", "--json"]
    done = subprocess.run(line, env=environment(database_url=url), capture_output=True, text=True, check=False)
    [clock] = [one for one in json.loads(done.stdout)["checks"] if one["name"] == "clock"]
    assert not clock["ok"]
    assert -3700 < float(clock["found"].split()[0]) < -3500
    assert "an eta will be off" in clock["meaning"]
    assert "NTP" in clock["fix"]


@shows("life")
def test_a_copy_of_a_database_is_another_life(run: Run, url: str, key: str, postgres: Server) -> None:
    settle(url, accepted(run, key))  # the first claim begins a life
    with psycopg.connect(postgres.url, autocommit=True) as db:
        name = url.rpartition("/")[2].partition("?")[0]
        db.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        db.execute(f"create database {name}_copy template {name} strategy wal_log".encode())
        try:
            failing(
                run,
                "life",
                found="",
                means="none is sent",
                fix="counterfoil recover",
                database_url=postgres.url_of(f"{name}_copy"),
            )
        finally:
            db.execute(f"drop database {name}_copy with (force)".encode())
    assert check(run, "life")["ok"]


# --- tables and rows ----------------------------------------------------------------------------------------------


@shows("indexes")
def test_an_index_whose_build_was_interrupted(run: Run, url: str, key: str) -> None:
    accepted(run, f"{key}:a")
    accepted(run, f"{key}:b")
    with psycopg.connect(url, autocommit=True) as db:
        [made] = db.execute("select pg_get_indexdef('outbox_held'::regclass)").fetchall()[0]
        db.execute("drop index outbox_held")
        with pytest.raises(psycopg.errors.UniqueViolation):  # which leaves it behind, invalid
            db.execute("create unique index concurrently outbox_held on outbox (lane)")
        try:
            failing(run, "indexes", found="invalid: outbox_held", means="slower", fix="drop index concurrently")
        finally:
            db.execute("drop index outbox_held")
            db.execute(made.encode())
    assert check(run, "indexes")["ok"]


@pytest.mark.slow
@shows("bloat")
def test_dead_rows_that_nobody_takes_away(run: Run, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("alter table outbox set (autovacuum_enabled = off)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):  # after all were written, and now are dead
            db.execute(
                "insert into outbox (effect_id, kind, lane, road) select gen_random_uuid(), 'charge', 'charge', 'fresh'"
                " from generate_series(1, 200001)"
            )
        db.execute("select pg_stat_force_next_flush()")
        try:
            failing(run, "bloat", found="dead rows", means="reads past them", fix="turn autovacuum on")
        finally:
            db.execute("alter table outbox reset (autovacuum_enabled)")
            db.execute("vacuum outbox")


ROWS = {
    "started and not finished": (
        "update effects set state = 'executing', attempt = 1, lease_until = now(),"  # noqa: ISC004 - one statement
        " first_sent_at = now() - interval '1 day' where id = '{}'",
        ("1, the oldest for 86", "hang or die within attempts", "workers' logs"),
    ),
    "pairs": (
        "delete from outbox where effect_id = '{}'",
        ("1 unsettled effects without an outbox row", "Invariant I7", "by hand"),
    ),
    "unknown": (
        "update effects set state = 'unknown', in_doubt = true, attempt = 1, first_sent_at = now() where id = '{}'",
        ("1 effects with an unknown outcome", "asked after by itself", "counterfoil effects list --state unknown"),
    ),
}  # fmt: skip


@shows(*ROWS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_that_stand_still_are_told_by_what_they_wait_for(
    run: Run, postgres: Server, template: str, key: str, name: str
) -> None:
    do, (found, means, fix) = ROWS[name]
    with postgres.database(template=template) as own:
        there = postgres.url_of(own)
        effect_id = json.loads(
            run("charge", "--amount", "1700", "--currency", "eur", "--payment-method", "pm_card_visa", "--key", key,
                "--json", database_url=there).stdout
        )["id"]  # fmt: skip
        assert check(run, name, database_url=there)["ok"]
        with spoiled(there, do.format(effect_id), "select 1"):
            failing(run, name, found=found, means=means, fix=fix, database_url=there)


@shows("parked")
def test_what_waits_for_a_person(run: Run, url: str, key: str) -> None:
    park(url, accepted(run, key))
    failing(run, "parked", found="parked effects", means="wait for a person", fix="counterfoil outbox replay")


# --- broker and providers -----------------------------------------------------------------------------------------


@shows("providers")
def test_a_provider_whose_circuit_is_open(run: Run, url: str) -> None:
    engine = make_engine(url, pooled=False)
    with engine.begin() as connection:
        circuits.failed(connection, "stripe", "charge", "status_503", threshold=1, probe=False)
    engine.dispose()
    with spoiled(url, "select 1", "delete from circuits"):
        failing(run, "providers", found="s: status_503", means="one probe at a time", fix="status page")


@shows("broker", "payments", "mail")
def test_what_is_not_set_is_named(run: Run) -> None:
    for name, setting in (("broker", "BROKER_URL"), ("payments", "STRIPE_API_KEY"), ("mail", "EMAIL_URL")):
        failing(
            run, name, found=f"COUNTERFOIL_{setting}", means="could not be looked at", fix=f"set COUNTERFOIL_{setting}"
        )


def test_a_visibility_timeout_of_somebodys_own_is_refused_by_name(run: Run, valkey_server: Any) -> None:
    wrong = f"{valkey_server.url}?visibility_timeout=5"
    failing(
        run, "broker", found="visibility_timeout; it follows from COUNTERFOIL_LEASE", means="", fix="", broker_url=wrong
    )


@shows("visibility")
def test_messages_that_a_lost_worker_held_and_nobody_hands_back(run: Run, valkey_server: Any) -> None:
    with valkey_server.client() as broker:
        broker.flushall()  # what tests before this one left in it
        assert check(run, "visibility", broker_url=valkey_server.url)["found"] == "no message is in hand"
        broker.zadd("unacked_index", {"tag": time.time() - 7200})
        try:
            failing(
                run, "visibility", found="in hand for 72", means="Nobody hands back", fix="counterfoil worker",
                broker_url=valkey_server.url,
            )  # fmt: skip
        finally:
            broker.delete("unacked_index")


@pytest.mark.slow
@shows("broker")
def test_queues_of_another_form_are_named(run: Run, rabbitmq_url: str) -> None:
    from kombu import Connection, Queue

    with Connection(rabbitmq_url) as connection:
        connection.channel().queue_delete("email")  # a test before this one may have made it as it should be
        Queue("email", durable=True, queue_arguments={"x-queue-type": "classic"})(connection.channel()).queue_declare()
        try:
            failing(
                run, "broker", found="queue email is no quorum queue", means="come due again", fix="delete those queues",
                broker_url=rabbitmq_url,
            )  # fmt: skip
        finally:
            connection.channel().queue_delete("email")
    assert check(run, "broker", broker_url=rabbitmq_url)["ok"]


# --- all of them --------------------------------------------------------------------------------------------------


def test_no_check_is_left_that_was_never_seen_failing(run: Run) -> None:
    checks = json.loads(run("doctor", "--json").stdout)["checks"]
    names = [one["name"] for one in checks]
    assert len(names) == len(set(names))
    assert set(names) == SHOWN
