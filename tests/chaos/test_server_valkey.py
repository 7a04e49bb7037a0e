"""Valkey dies, forgets, is full, throws away what it likes, or stands still: it costs time and never an effect (W4)."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.flow.waiting import age
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = pytest.mark.timeout(300)
slow = pytest.mark.slow
MakeValkey = Callable[..., ValkeyWire]
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


def test_a_valkey_without_persistence_killed_under_load_and_started_empty(
    house: House, own_valkey: MakeValkey, database: str
) -> None:
    wire = own_valkey()
    trial = house(database, wire)
    trial.begin(24)
    trial.load.reaches(8)
    wire.server.stop()
    wire.server.start()
    trial.judged("valkey lost everything", valkey_killed=1)


@slow
@pytest.mark.parametrize("arguments", [(), KEPT], ids=["forgets", "append-only"])
def test_a_valkey_that_is_killed_again_and_again(
    house: House, own_valkey: MakeValkey, database: str, arguments: tuple[str, ...]
) -> None:
    wire = own_valkey(*arguments)
    trial = house(database, wire)
    trial.begin(54)
    for n in range(6, 54, 8):
        trial.load.reaches(n)
        wire.server.stop()
        trial.system.until(age(0.4), "it was away for a while")
        wire.server.start()
    trial.judged("valkey killed again and again", valkey_killed=6)
    assert {program.code for program in (*trial.relays, *trial.workers)} == {None}


@slow
def test_a_valkey_that_is_flushed_again_and_again(house: House, own_valkey: MakeValkey, database: str) -> None:
    wire = own_valkey()
    trial = house(database, wire)
    trial.begin(60)
    for n in range(3, 60, 3):
        trial.load.reaches(n)
        wire.empty()
    trial.judged("valkey flushed", valkey_flushed=19)


@slow
def test_a_valkey_that_evicts_what_it_likes(house: House, own_valkey: MakeValkey, database: str) -> None:
    """Somebody else's cache in the same server: queues are evicted with the rest, and the doctor says what is wrong."""
    wire = own_valkey("--maxmemory-policy", "allkeys-random", "--maxmemory", "4mb")
    trial = house(database, wire)
    trial.begin(60)
    with wire.server.client() as client:
        for n in range(3, 60, 3):
            trial.load.reaches(n)
            for i in range(40):
                client.set(f"cache:{n}:{i}", "x" * 50_000)
        evicted = int(client.info("stats")["evicted_keys"])
        check = trial.doctor()["broker"]
        assert not check["ok"]
        assert "maxmemory-policy is allkeys-random" in check["found"]
    trial.judged("valkey evicts", keys_evicted=evicted)


@slow
def test_a_valkey_that_is_full_is_an_outage_and_the_doctor_says_so(
    house: House, own_valkey: MakeValkey, database: str
) -> None:
    """It answers every question and takes no message."""
    wire = own_valkey(*KEPT)
    trial = house(database, wire)
    trial.begin()
    trial.load.reaches(10)
    with wire.server.client() as client:
        client.config_set("maxmemory", "1mb")
        trial.system.until(lambda: trial.relays[0].lines("outage"), "the relay says that it takes nothing")
        check = trial.doctor()["broker"]
        assert not check["ok"]
        assert "did not take" in check["found"]
        client.config_set("maxmemory", "0")
    trial.judged("valkey full", valkey_full=1)
    assert [line["event"] for line in trial.relays[0].lines("outage")] == ["outage", "outage_over"]


@slow
def test_a_valkey_that_stands_still_for_longer_than_a_lease(
    house: House, own_valkey: MakeValkey, database: str
) -> None:
    wire = own_valkey()
    trial = house(database, wire)
    trial.begin()
    trial.load.reaches(10)
    with wire.frozen():
        trial.system.until(age(float(trial.system.settings["LEASE"]) + 2), "every lease is over")
    trial.judged("valkey frozen", valkey_frozen=1)


@slow
def test_a_worker_told_to_stop_while_its_broker_stands_still_leaves_in_time(
    house: House, own_valkey: MakeValkey, database: str
) -> None:
    """Its socket timeout is ten seconds: a supervisor's patience is longer than that."""
    wire = own_valkey()
    trial = house(database, wire)
    trial.begin()
    trial.load.reaches(10)
    with wire.frozen():
        for program in (*trial.relays, *trial.workers):
            program.signal(signal.SIGTERM)
        trial.system.until(
            lambda: all(program.code is not None for program in (*trial.relays, *trial.workers)), "all have left", 60
        )
    trial.system.relay()
    trial.worker()
    trial.blind_worker()
    trial.judged("stopped while valkey was frozen", valkey_frozen=1)
