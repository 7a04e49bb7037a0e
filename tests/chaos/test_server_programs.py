"""Our own programs are killed and stopped politely under load, one after the other: whoever is left, or comes, goes on."""

from __future__ import annotations

import json
import random
import signal
import urllib.error
import urllib.request
from collections import Counter

import pytest

from tests.chaos.servers.fixtures import House, house, own_valkey, postgres_foundry
from tests.chaos.servers.trial import Trial
from tests.flow import brokers
from tests.flow.program import Program
from tests.flow.test_pools import on_both_brokers
from tests.flow.waiting import age
from tests.flow.wires import Wire

__all__ = ["house", "own_valkey", "postgres_foundry"]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
HOW = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "quit": signal.SIGQUIT}
BLOWS = 10
INTENTS = 50


class Programs:
    """What runs by name; what was told to end is replaced at once, beside the one that is still leaving."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._port = brokers.free_port()
        self.ended: Counter[str] = Counter()
        self.left: list[Program] = []
        self.now: dict[str, Program] = {}
        for name in ("relay-1", "relay-2", "worker-1", "worker-2", "blind", "beat", "api"):
            self.start(name)

    def start(self, name: str) -> None:
        system = self._trial.system
        starters = {
            "relay": system.relay,
            "worker": lambda: self._trial.worker(lanes="charge,email,periodic"),
            "blind": self._trial.blind_worker,
            "beat": lambda: system.start("beat", ["service", "beat"]),
            "api": lambda: system.start("api", ["service", "api", "--port", str(self._port)]),
        }
        self.now[name] = starters[name.partition("-")[0]]()

    def end(self, name: str, number: signal.Signals) -> None:
        program = self.now[name]
        program.signal(number)
        program.expected_to_run = False
        self.left.append(program)
        self.ended[name.partition("-")[0]] += 1
        if name == "api":  # the next one wants its port
            program.wait(40)
        self.start(name)

    def charge(self, key: str) -> str | None:
        """By HTTP; None if nobody answers."""
        wish = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": "pm_card_visa"}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/v1/charges",
            data=json.dumps(wish).encode(),
            headers={"Content-Type": "application/json", "Idempotency-Key": key},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(json.load(answer)["id"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None


@on_both_brokers
@pytest.mark.parametrize("how", HOW)
def test_each_program_ended_under_load_and_started_again(
    house: House, wire: Wire, database: str, how: str, seed: int
) -> None:
    trial = house(database, wire)
    choose = random.Random(f"{seed} {how}")
    programs = Programs(trial)
    # Nobody must be missing: each once, then as it comes.
    names = [*programs.now, *choose.choices(list(programs.now), k=BLOWS - len(programs.now))]
    choose.shuffle(names)
    by_http = []
    trial.system.stripe.fault("slow", route="confirm", seconds=0.12, times=None)
    trial.load = type(trial.load)(INTENTS)
    trial.load.start()
    for n, name in enumerate(names, 1):
        trial.load.reaches(n * INTENTS // (len(names) + 2))
        programs.end(name, HOW[how])
        key = f"http:{how}:{n}"
        by_http.append(trial.system.until(lambda key=key: programs.charge(key), "the API accepts", 60))  # type: ignore[misc]
    trial.system.until(lambda: all(one.code is not None for one in programs.left), "whoever was told to has left", 60)
    kills = len(programs.left) if how == "kill" else 0
    counts = {f"{role}_{how}": n for role, n in programs.ended.items()}
    books = trial.judged(f"programs: {how}", kills=kills, **counts)
    assert set(by_http) <= set(books.effects)
    if how == "term":
        polite = {one.name: one.code for one in programs.left if not one.name.startswith("worker")}
        # Whoever was told before it had begun to listen to signals is ended by this one.
        assert set(polite.values()) <= {0, -signal.SIGTERM}, polite


def test_everything_killed_at_once_and_started_again(house: House, wire: Wire, database: str) -> None:
    """I10, three times: the whole installation and its broker's contents are gone at one moment."""
    trial = house(database, wire)
    trial.begin(45)
    everybody = [*trial.relays, *trial.workers]
    for n in (10, 20, 30):
        trial.load.reaches(n)
        for program in everybody:
            program.signal(signal.SIGKILL)
        for program in everybody:
            program.wait()
        wire.empty()
        trial.system.until(age(0.2), "nobody runs")
        everybody = [trial.system.relay(), trial.system.relay(), trial.worker(), trial.blind_worker()]
    trial.judged("everything killed", kills=11, everything_killed=3)
