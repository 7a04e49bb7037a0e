"""A storm: one round of the soak. Clients ask, everything is killed, paused, emptied and cut at random, then calm, then the verdict.

One seed decides all faults and all wishes; the run prints it with the command that repeats it. Time itself is not
repeated, so the same seed gives the same faults in the same order and not at the same instants.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.chaos.book import record
from tests.chaos.soak.installation import ground
from tests.chaos.soak.round import play
from tests.flow import brokers

pytestmark = pytest.mark.timeout(600)
SHORT_SECONDS, LONG_SECONDS = 8.0, 60.0
BROKERS = ["valkey", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)]


def _storm(broker: str, seed: int, seconds: float, folder: Path) -> None:
    if broker == "rabbitmq" and shutil.which("rabbitmq-server") is None:
        pytest.skip(brokers.NO_RABBIT)
    print(f"python -m tests.chaos.soak --broker {broker} --hours 0 --round-seconds {seconds:g} --seed {seed}")
    with ground(folder, rabbit=broker == "rabbitmq") as servers:
        done = play(servers, broker, seed, seconds, folder / "round")
    print(done.struck, done.verdict.facts)
    faults = {f"fault_{name}": times for name, times in done.struck.items()}
    record("storm", "one round", broker=broker, seed=seed, intents=done.verdict.intents, kills=done.kills, **faults)
    assert done.verdict.intents
    assert done.struck


def test_after_a_short_storm_all_has_become_what_the_clients_programs_say(seed: int, tmp_path: Path) -> None:
    _storm("valkey", seed, SHORT_SECONDS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("broker", BROKERS)
def test_after_a_storm_all_has_become_what_the_clients_programs_say(broker: str, seed: int, tmp_path: Path) -> None:
    _storm(broker, seed, LONG_SECONDS, tmp_path)
