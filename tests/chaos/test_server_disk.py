"""Postgres's disk is full, or loses its power: whatever was acknowledged is there, and happens once."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.servers import images
from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.postgres import Foundry, Postgres
from tests.flow.wires import ValkeyWire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
SIZE, LARGER = 150, 400  # MiB; a migrated cluster takes some 60
IMAGE = 400
SYNCED, UNSYNCED = "", "fsync = off\nfull_page_writes = off\n"


@pytest.fixture
def ground(postgres_foundry: Foundry) -> Iterator[Path]:
    """A folder that whoever Postgres runs as may pass through."""
    folder = postgres_foundry.folder / "disks"
    folder.mkdir()
    try:
        if not images.possible(folder):
            pytest.skip(images.NO_MOUNTS)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_disk_that_is_full_and_then_larger(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, ground: Path
) -> None:
    """Statements fail, or Postgres itself panics when its log has no room; both are outages, and neither is for ever."""
    with images.small_disk(ground / "small", SIZE) as disk, postgres_foundry.server(on=disk) as postgres:
        trial = house(postgres.url, valkey_wire)
        trial.begin()
        trial.load.reaches(10)
        with (disk / "stranger").open("wb") as stranger:
            _fill(stranger.fileno())
        trial.system.until(lambda: trial.load.refused, "the caller is told")
        images.grow(disk, LARGER)
        if postgres.ended():
            postgres.start()
        trial.judged("disk full", disk_full=1)
        assert "No space left on device" in postgres.log()


def _fill(file: int) -> None:
    block = b"x" * 2**16
    try:
        while os.write(file, block):
            pass
    except OSError:
        return


@pytest.mark.parametrize("configuration", [SYNCED, UNSYNCED], ids=["as configured", "fsync off loses"])
def test_the_power_is_cut(
    house: House, postgres_foundry: Foundry, valkey_wire: ValkeyWire, ground: Path, configuration: str
) -> None:
    """With `fsync = off` the same cut loses what was acknowledged: without that this would prove nothing."""
    disk = images.image(ground, IMAGE)
    with disk.mounted() as place, postgres_foundry.server(configuration, on=place) as postgres:
        trial = house(postgres.url, valkey_wire)
        disk.flush()
        trial.begin()
        trial.load.reaches(25)
        with postgres.frozen():
            acknowledged = set(trial.load.acknowledged.values())
            after = disk.copied(ground / "after.img")
            for program in (*trial.relays, *trial.workers):
                program.kill()
            postgres.vanish()
        with after.mounted() as again:
            [home] = list(again.glob("server-*"))
            found = postgres.moved_to(home / "data")
            try:
                if configuration == UNSYNCED:
                    assert _lost(found, acknowledged), "nothing was lost: the cut is none"
                    trial.load.gives_up()
                    return
                found.start()
                trial.system.relay()
                trial.worker()
                trial.blind_worker()
                trial.judged("power cut", kills=3, power_cuts=1)
                assert not _missing(found.url, acknowledged)
            finally:
                found.stop(signal.SIGKILL)


def _lost(server: Postgres, acknowledged: set[str]) -> bool:
    """Some of it, or so much that the server does not even start."""
    try:
        server.start()
        return bool(_missing(server.url, acknowledged))
    except (AssertionError, psycopg.Error):
        return True


def _missing(url: str, acknowledged: set[str]) -> set[str]:
    with psycopg.connect(url) as db:
        return acknowledged - {str(row[0]) for row in db.execute("select id from effects")}
