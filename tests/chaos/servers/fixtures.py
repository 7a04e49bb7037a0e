"""What the tests of server faults are given: servers of their own, and a trial on any database and broker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.servers.postgres import Foundry, foundry
from tests.chaos.servers.trial import LANES, Trial
from tests.conftest import forget_process_state
from tests.contract.fake_servers import FakeServer
from tests.flow.brokers import Valkey
from tests.flow.nursery import Nursery
from tests.flow.system import System
from tests.flow.wires import ValkeyWire, Wire

House = Callable[..., Trial]
__all__ = ["House", "house", "own_valkey", "postgres_foundry"]


@pytest.fixture(scope="session")
def postgres_foundry() -> Iterator[Foundry]:
    with foundry() as made:
        yield made


@pytest.fixture
def own_valkey() -> Iterator[Callable[..., ValkeyWire]]:
    """`own_valkey("--appendonly", "yes")`: a Valkey of this test alone, as a wire."""
    made: list[Valkey] = []
    with tempfile.TemporaryDirectory(prefix="counterfoil-valkey-", ignore_cleanup_errors=True) as folder:

        def make(*arguments: str) -> ValkeyWire:
            made.append(Valkey(Path(folder), *arguments))
            made[-1].start()
            return ValkeyWire(made[-1])

        try:
            yield make
        finally:
            for server in made:
                server.stop()


@pytest.fixture
def house(
    stripe_fake: FakeServer,
    mail_fake: FakeServer,
    nursery: Nursery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> Iterator[House]:
    """`house(database_url, wire)`: a trial there. `through`: where processes and callers find it, when not directly."""
    made: list[System] = []

    def make(database: str, wire: Wire, *, through: str | None = None, **settings: Any) -> Trial:
        system = System(database, wire, stripe_fake, mail_fake, nursery, tmp_path)
        system.settings |= {"LANES": LANES, "DATABASE_URL": through or database, **settings}
        made.append(system)
        for name in ("DATABASE_URL", "LANES", "STATE_DIR"):
            monkeypatch.setenv(f"COUNTERFOIL_{name}", system.settings[name])
        forget_process_state()
        return Trial(system, seed=seed)

    try:
        yield make
    finally:
        forget_process_state()
        for system in made:
            system.close()
