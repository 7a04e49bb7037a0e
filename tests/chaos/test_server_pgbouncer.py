"""Behind PgBouncer in transaction mode: nothing of ours lives in a session, and everything happens once all the same.

What it costs is the bell (LISTEN does not pass), prepared statements and our timeouts; the doctor says so.
"""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.pgbouncer import NO_PGBOUNCER, pgbouncer
from tests.chaos.servers.postgres import USER, Foundry
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists()), reason=NO_PGBOUNCER),
]
IGNORES = "ignore_startup_parameters = options"


@pytest.mark.parametrize("more", ["", IGNORES], ids=["as it comes", "told to ignore our options"])
def test_a_pooler_that_is_killed_and_started_again_under_load(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, more: str
) -> None:
    with postgres_foundry.server() as postgres, pgbouncer(postgres.port, more=more) as pooler:
        trial = house(postgres.url, valkey_wire, through=pooler.url)
        trial.begin()
        for n in (10, 20, 30):
            trial.load.reaches(n)
            pooler.stop(signal.SIGKILL)
            trial.system.until(age(0.5), "it was away for a while")
            pooler.start()
        trial.judged("pooler killed", pooler_killed=3)
        assert trial.relays[0].lines("no_bell")
        assert not [line for one in (*trial.workers, *trial.relays) for line in one.lines() if "exception" in line]


def test_a_postgres_that_restarts_behind_its_pooler(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """The connection to the pooler stands and every statement on it fails: for as long as it lasts, an outage."""
    with postgres_foundry.server() as postgres, pgbouncer(postgres.port, more=IGNORES) as pooler:
        trial = house(postgres.url, valkey_wire, through=pooler.url)
        trial.begin()
        for n in (10, 20, 30):
            trial.load.reaches(n)
            postgres.stop(signal.SIGKILL)
            trial.system.until(age(0.5), "it was away for a while")
            postgres.start()
        trial.judged("postgres killed behind its pooler", postgres_restarted=3)


def test_a_pooler_whose_connections_strangers_hold(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """Whoever waits too long is refused by the pooler itself (query_wait_timeout)."""
    with postgres_foundry.server() as postgres, pgbouncer(postgres.port, size=3, wait=1, more=IGNORES) as pooler:
        trial = house(postgres.url, valkey_wire, through=pooler.url)
        trial.begin()
        trial.load.reaches(10)
        with ExitStack() as strangers:
            for _ in range(3):
                stranger = strangers.enter_context(psycopg.connect(pooler.url))
                stranger.execute("select 1")  # and stays in its transaction
            trial.system.until(lambda: trial.load.refused, "the caller is told")
            trial.system.until(lambda: trial.relays[0].lines("outage"), "the relay has noticed")
        trial.judged("pool exhausted", pool_exhausted=1)


def test_what_needs_a_session_says_so_and_the_doctor_says_what_a_pooler_costs(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """An audit's lock and tables, and a migration's, would be left behind in a session that others use next."""
    with postgres_foundry.server() as postgres, pgbouncer(postgres.port) as pooler:
        trial = house(postgres.url, valkey_wire, through=pooler.url)
        for words in (["audit"], ["db", "upgrade"]):
            program = trial.system.start("caller-session", ["service", *words])
            assert program.wait() != 0
            assert "COUNTERFOIL_DATABASE_URL of this process name Postgres itself" in " ".join(program.text().split())
        limits = trial.doctor()["limits"]
        assert (limits["ok"], limits["found"]) == (False, "a pooler, statement_timeout 0")
        postgres.ask(f"alter role {USER} set statement_timeout = '15s'")
        with pgbouncer(postgres.port) as fresh:
            limits = trial.doctor(DATABASE_URL=fresh.url)["limits"]
        assert (limits["ok"], limits["found"]) == (True, "a pooler, statement_timeout 15s")
        locks = "select count(*) from pg_locks where locktype = 'advisory'"
        assert postgres.ask(locks) == 0
