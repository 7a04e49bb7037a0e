"""One server fault, from beginning to end: load, the fault in the middle of it, healed, drained, judged, written down.

Nothing may hang and nothing may die by itself: `System.until` fails at once when a program of ours has ended that nobody
has killed. What is judged is the provider's ledger and the database, by the oracle, and the load's own list of what it
was promised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.chaos.book import record
from tests.chaos.servers.load import BLIND_LANE, Load
from tests.flow.oracle import Books
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.wires import ValkeyWire

LANES = f"charge,email,{BLIND_LANE}"
# So slow is the provider that some request is always under way when the fault comes.
PROVIDER_SECONDS = 0.12
DRAIN_SECONDS = 90.0
# An undisturbed charge is two requests and its receipt one; more than so many on average would be a storm (I11).
CALLS_MEAN_MAX = 8.0
INTENTS = 40
_OPEN = "select id, kind, state, attempt, not_before from effects where state not in ('succeeded', 'failed', 'parked')"


class Trial:
    """`begin`, break something, `judged`."""

    def __init__(self, system: System, *, seed: int | None = None) -> None:
        self.system = system
        self.load = Load(INTENTS)
        self.relays: list[Program] = []
        self.workers: list[Program] = []
        self._seed = seed

    def begin(self, intents: int = INTENTS, *, without: str = "", **worker: Any) -> None:
        """A relay, a worker for each mail provider, and a caller at work who asks for nothing of the kind `without`."""
        self.load = Load(intents, without=without)
        self.relays = [self.system.relay()]
        self.workers = [self.worker(**worker), self.blind_worker()]
        for one in self.workers:
            self.system.ready(one)
        self.system.stripe.fault("slow", route="confirm", seconds=PROVIDER_SECONDS, times=None)
        self.load.start()

    def worker(self, **more: Any) -> Program:
        return self.system.worker(**more)

    def blind_worker(self, **more: Any) -> Program:
        """Its letters go by SMTP, which neither knows a key nor answers questions."""
        return self.system.worker(lanes=BLIND_LANE, EMAIL_URL=self.system.mail.address["smtp_url"], **more)

    def open(self) -> list[dict[str, Any]]:
        """What is neither settled nor waits for a person."""
        return self.system.sql(_OPEN)

    def judged(
        self, subject: str, *, kills: int = 0, read: Callable[[Books], Books] = lambda books: books, **faults: int
    ) -> Books:
        """Everything works again: all that was asked for comes to its end, once, and both sides agree."""
        for fake in (self.system.stripe, self.system.mail):
            fake.reset()
        self.load.ends()
        self.system.until(lambda: not self.open(), "all is settled or waits for a person", DRAIN_SECONDS)
        books = read(self.system.oracle.books())
        wrong = [*self.system.oracle.violations(books), *self.load.objections(books)]
        assert not wrong, "\n".join(wrong)
        calls = len(books.asked) / len(books.effects)
        assert calls <= CALLS_MEAN_MAX, f"I11 {calls:.1f} requests for one effect on average"
        broker = "valkey" if isinstance(self.system.wire, ValkeyWire) else "rabbitmq"
        counts = {f"fault_{name}": n for name, n in faults.items()}
        assert all(counts.values()), f"a fault did not come: {counts}"
        record(
            "server faults", subject, broker=broker, seed=self._seed, intents=len(books.effects), kills=kills, **counts
        )
        return books

    def doctor(self, **more: str) -> dict[str, dict[str, Any]]:
        """What `counterfoil doctor` says of each thing, by name."""
        program = self.system.start("caller-doctor", ["service", "doctor", "--json"], **more)
        program.wait(60)
        [line] = [line for line in program.text().splitlines() if line.startswith("{") and '"checks"' in line]
        return {check["name"]: check for check in json.loads(line)["checks"]}
