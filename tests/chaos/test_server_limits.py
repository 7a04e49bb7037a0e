"""A worker that runs out of memory, files or time dies or gives up: its effects are somebody else's a lease later."""

from __future__ import annotations

import os
import resource

import psutil
import pytest

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
ROOM_BYTES = 2**20  # over what it has: the next connection, thread or answer does not fit
MEMORY_TRIES = 3


def test_a_worker_without_memory_is_replaced_and_its_effects_with_it(
    house: House, valkey_wire: ValkeyWire, database: str
) -> None:
    """The limit falls below what it needs while it works; whether it dies of it or goes on failing, a supervisor ends it."""
    trial = house(database, valkey_wire)
    trial.begin(54)
    worker = trial.workers[0]
    for n in range(1, MEMORY_TRIES + 1):
        trial.load.reaches(n * 12)
        worker.expected_to_run = False
        size = psutil.Process(worker.pid).memory_info().vms + ROOM_BYTES
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (size, size))
        trial.load.reaches(n * 12 + 5)
        worker.kill()
        worker = trial.system.ready(trial.worker())
    trial.judged("memory limit", kills=MEMORY_TRIES, memory_limits=MEMORY_TRIES)


def test_a_worker_without_files_goes_on_when_it_has_some_again(
    house: House, valkey_wire: ValkeyWire, database: str
) -> None:
    """No new connection to Postgres, provider or broker can be made for a while: that is an outage, not an answer."""
    trial = house(database, valkey_wire)
    trial.begin()
    worker = trial.workers[0]
    before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    for n in (8, 16, 24):
        trial.load.reaches(n)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (_files(worker.pid) - 2, before[1]))
        # What it has is cut, so that it needs new ones.
        trial.system.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'counterfoil'"
        )
        trial.load.reaches(n + 6)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
    trial.judged("file limit", file_limits=3)
    assert worker.code is None


def _files(pid: int) -> int:
    """The highest number that is in use, and one."""
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1  # noqa: PTH208 - names, not paths


@pytest.mark.parametrize("limit", ["soft", "hard"])
def test_a_child_that_takes_too_long_is_ended_and_its_effect_settled_by_the_next(
    house: House, valkey_wire: ValkeyWire, database: str, limit: str
) -> None:
    """Only prefork can: Celery interrupts (soft) or kills (hard) a child in the middle of a call to the provider."""
    trial = house(database, valkey_wire)
    system = trial.system
    # The service sets no soft limit, so that of the command line counts.
    app, *flags = {"soft": ("tasks", "--soft-time-limit", "1"), "hard": ("tests.chaos.servers.hasty",)}[limit]
    trial.relays = [system.relay()]
    argv = ["celery", "-A", app, "--quiet", "worker", "--pool", "prefork", "--concurrency", "2", *flags]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-Q", "charge,email"]
    slow = {"PROVIDER_DEADLINE": "3", "LEASE": "10", "REDELIVERY": "10.5"}
    worker = system.start("worker-prefork", [*argv, *quiet], **slow)
    trial.blind_worker()
    system.ready(worker)
    system.stripe.fault("slow", route="confirm", seconds=2.5, times=4)
    trial.load = type(trial.load)(18)
    trial.load.start()
    said = {"soft": "Soft time limit", "hard": "Hard time limit"}[limit]
    system.until(lambda: said in worker.text(), "Celery has lost its patience")
    system.stripe.reset()
    books = trial.judged(f"time limit: {limit}", time_limits=1)
    assert worker.code is None
    assert {effect["state"] for effect in books.effects.values()} <= {"succeeded", "failed", "parked"}
