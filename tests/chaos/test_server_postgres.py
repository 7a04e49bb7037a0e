"""Postgres dies, restarts, fills up with strangers, runs out of patience: every commit it acknowledged is kept and done once."""

from __future__ import annotations

import signal
from contextlib import ExitStack, suppress

import psycopg
import pytest

from service.core.errors import DependencyUnavailable
from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.postgres import Foundry
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = pytest.mark.timeout(300)
slow = pytest.mark.slow
RESTARTS = 8
DOWN_SECONDS = 0.5


def test_a_postmaster_killed_under_load_and_started_again(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    with postgres_foundry.server() as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin(24)
        trial.load.reaches(8)
        postgres.stop(signal.SIGKILL)
        postgres.start()
        trial.judged("postmaster killed", postmaster_killed=1)


@slow
@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT, signal.SIGKILL], ids=["immediate", "fast", "kill"])
def test_a_postgres_that_is_stopped_and_started_again_and_again(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, how: signal.Signals
) -> None:
    """As DBOS tests itself, but closer together: no process of ours is started again, all of them sit it out."""
    with postgres_foundry.server() as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin(RESTARTS * 9)
        for n in range(1, RESTARTS + 1):
            trial.load.reaches(n * 7)
            postgres.stop(how)
            trial.system.until(age(DOWN_SECONDS), "it was away for a while")
            postgres.start()
        trial.judged(f"postgres stopped by {how.name}", postgres_restarted=RESTARTS)
        assert {program.code for program in (*trial.relays, *trial.workers)} == {None}


@slow
def test_strangers_who_take_every_connection_and_give_them_back(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """Callers are told, relay and workers wait, the doctor says what it is."""
    with postgres_foundry.server("fsync = off\nmax_connections = 30\n") as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        trial.load.reaches(10)
        with ExitStack() as strangers:
            outside = strangers.enter_context(psycopg.connect(postgres.url, autocommit=True))

            def told() -> bool:
                # One of ours may slip in between the cut and the last stranger, so until the caller himself is refused.
                while ours_cut(outside) or _enters(strangers, postgres.url):
                    pass
                return "too many clients" in "".join(trial.load.refused)

            trial.system.until(told, "the caller is told")
            trial.system.until(lambda: trial.relays[0].lines("outage"), "the relay has noticed")
            [database] = [check for name, check in trial.doctor().items() if name == "database"]
            assert not database["ok"]
            assert "too many clients" in database["found"]
        trial.judged("max_connections", connections_taken=1)


def _enters(strangers: ExitStack, url: str) -> bool:
    try:
        strangers.enter_context(psycopg.connect(url))
    except psycopg.OperationalError:
        return False
    return True


def ours_cut(outside: psycopg.Connection[tuple[object, ...]]) -> int:
    """Every connection of our processes is ended; how many there were."""
    query = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'counterfoil'"
    return len(outside.execute(query).fetchall())


@slow
def test_a_postgres_that_is_frozen_for_longer_than_a_lease(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """It neither answers nor hangs up; when it goes on it carries out what it was asked long ago (I9)."""
    with postgres_foundry.server() as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        trial.load.reaches(10)
        with postgres.frozen():
            trial.system.until(age(float(trial.system.settings["LEASE"]) + 1), "every lease is over")
        trial.judged("postgres frozen", postgres_frozen=1)


@slow
def test_a_postgres_that_ends_slow_transactions_of_ours(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """It hangs up in the middle of a statement with an error of its own; that is an outage, never a bug."""
    with postgres_foundry.server() as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        trial.load.reaches(8)
        postgres.configure(transaction_timeout="3ms")

        def hung_up() -> bool:
            with suppress(DependencyUnavailable):
                trial.system.charge(receipt="slow@example.test")
            return "FATAL:  terminating connection due to transaction timeout" in postgres.log()

        trial.system.until(hung_up, "it has hung up on us")
        postgres.configure(transaction_timeout=0)
        trial.judged("transaction timeout", transactions_ended=1)
        assert not [line for program in trial.workers for line in program.text().splitlines() if "Traceback" in line]


@slow
def test_a_postgres_that_cancels_our_statements(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire
) -> None:
    """As a statement timeout does: the connection stays, the statement has not happened."""
    query = "select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'counterfoil' and state = 'active'"
    with postgres_foundry.server() as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        cancelled = 0
        with psycopg.connect(postgres.url, autocommit=True) as outside:
            for n in range(10, 40):
                trial.load.reaches(n)
                for _ in range(20):
                    cancelled += len(outside.execute(query).fetchall())
        trial.judged("statements cancelled", statements_cancelled=cancelled)
