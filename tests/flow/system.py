"""The whole house in real processes, for one test: relays, workers of any pool, an API, on a database of its own.

Servers and fakes live for the run and are shared; what is started here is killed at the end of the test. Times are
short, so that a lease that ran out is news after three seconds. Everything that was logged is shown when a test fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from tests.contract.fake_servers import FakeServer
from tests.flow.nursery import Nursery
from tests.flow.oracle import FINAL, Oracle
from tests.flow.program import Program
from tests.flow.waiting import until
from tests.flow.wires import Wire

TIMES = {"PROVIDER_DEADLINE": "0.6", "LEASE": "3", "REDELIVERY": "3.5", "POLL": "0.2"}
LOG_SHOWN_CHARACTERS = 6_000
T = TypeVar("T")
_keys = count(1)


class System:
    """Start only what the test needs; `oracle.check()` at the end of it."""

    def __init__(
        self, database: str, wire: Wire, stripe: FakeServer, mail: FakeServer, nursery: Nursery, folder: Path
    ) -> None:
        self.database = database
        self.wire = wire
        self.stripe = stripe
        self.mail = mail
        self.programs: list[Program] = []
        self._nursery = nursery
        self._folder = folder
        self.oracle = Oracle(database, stripe.admin, mail.admin)
        self.settings = {
            **TIMES,
            "DATABASE_URL": database,
            "BROKER_URL": wire.url,
            "STRIPE_API_KEY": "sk_test_flow",
            "STRIPE_API_BASE": stripe.address["url"],
            "EMAIL_URL": mail.address["http_url"].replace("http://", "resend+http://flow@"),
            "STATE_DIR": str(folder),
            "LOG_FORMAT": "json",
        }

    # --- programs ----------------------------------------------------------------------------------------------

    def start(self, name: str, argv: Sequence[str], *, cold: bool = False, **more: str) -> Program:
        """`python -m ARGV`; settings by name, a leading PYTHON… goes through as it is."""
        own = {f"COUNTERFOIL_{k}": v for k, v in self.settings.items()}
        own |= {k if k.startswith("PYTHON") else f"COUNTERFOIL_{k}": v for k, v in more.items()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COUNTERFOIL_")}
        env = {**kept, "PYTHONUNBUFFERED": "1", **own}
        place = self._folder / f"{len(self.programs):02d}-{name}.log"
        program = Program(name, argv, env, place, None if cold else self._nursery)
        self.programs.append(program)
        return program

    def relay(self, **more: str) -> Program:
        return self.start("relay", ["service", "relay"], **more)

    def worker(
        self, pool: str = "threads", *, concurrency: int = 4, lanes: str = "charge,email", **more: str
    ) -> Program:
        """What `counterfoil worker` becomes. gevent must patch before anything is imported: a cold start."""
        flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency", str(concurrency)]
        argv = ["celery", "-A", "tasks", "--quiet", "worker", "--pool", pool, *flags, "-Q", lanes]
        return self.start(f"worker-{pool}", argv, cold=pool == "gevent", **more)

    def ready(self, worker: Program) -> Program:
        """Wait until the worker takes messages."""
        self.until(lambda: "ready." in worker.text(), f"{worker.name} is ready")
        return worker

    def close(self) -> None:
        """Nothing of ours goes on; what was logged is printed, and shown if the test failed."""
        for fake in (self.stripe, self.mail):
            with suppress(OSError):
                fake.reset()
        for program in self.programs:
            program.end()
            print(f"--- {program.name} (pid {program.pid}, ended with {program.code})")
            print(program.text()[-LOG_SHOWN_CHARACTERS:])

    # --- callers -----------------------------------------------------------------------------------------------

    def charge(
        self, *, card: str = "pm_card_visa", receipt: str | None = None, amount: int = 4200, **options: Any
    ) -> str:
        """Accept one charge in a transaction of its own; its effect id."""
        return self.charges(1, card=card, receipt=receipt, amount=amount, **options)[0]

    def charges(
        self, number: int, *, card: str = "pm_card_visa", receipt: str | None = None, amount: int = 4200, **options: Any
    ) -> list[str]:
        """Several in one transaction."""
        from tasks import charge

        wish = {"amount": amount, "currency": "eur", "customer": "cus_1", "payment_method": card}
        if receipt:
            wish["receipt_email"] = receipt
        calls = [{"kwargs": wish, "dedupe_key": f"order:{next(_keys)}:charge", **options} for _ in range(number)]
        return [result.id for result in charge.apply_many(calls)]

    def email(self, to: str, **request: Any) -> str:
        """Accept one letter; its effect id."""
        from tasks import email

        wish = {"to": to, "subject": "Hello", "text": "A letter.\n.\nWith a lone dot.\n", **request}
        return str(email.apply_async(kwargs=wish, dedupe_key=f"letter:{next(_keys)}").id)

    # --- looking -----------------------------------------------------------------------------------------------

    def sql(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database, autocommit=True, row_factory=dict_row) as db:
            cursor = db.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def effect(self, effect_id: str) -> dict[str, Any]:
        return self.sql("select * from effects where id = %s", effect_id)[0]

    def outbox(self, effect_id: str) -> dict[str, Any] | None:
        return next(iter(self.sql("select * from outbox where effect_id = %s", effect_id)), None)

    def facts(self, effect_id: str) -> list[str]:
        rows = self.sql("select fact from journal where effect_id = %s order by id", effect_id)
        return [row["fact"] for row in rows]

    def charged(self, effect_id: str) -> int:
        """How often, by the provider's own ledger."""
        return int(self.stripe.admin(f"ledger?effect_id={effect_id}")["summary"]["rows"])

    def asked(self, effect_id: str, step: str) -> list[dict[str, Any]]:
        """The requests of one step that reached the provider."""
        fake = self.mail if step == "send" else self.stripe
        return list(fake.admin(f"requests?key={effect_id}:{step}")["requests"])

    def state(self, effect_id: str) -> str:
        return str(self.effect(effect_id)["state"])

    # --- waiting -----------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], what: str, seconds: float = 30) -> T:
        """Wait, and do not wait for what can no longer come: a program that died by itself fails the test at once."""

        def look() -> T:
            if not (found := condition()):
                dead = [p for p in self.programs if p.expected_to_run and p.code is not None]
                assert not dead, f"waiting until {what}: {dead[0].name} ended by itself with {dead[0].code}"
            return found

        return until(look, what, seconds)

    def reaches(self, effect_id: str, *states: str, seconds: float = 30) -> str:
        """Wait until the effect is in one of the states."""
        wanted = " or ".join(states)
        self.until(lambda: self.state(effect_id) in states, f"{effect_id} is {wanted}", seconds)
        return self.state(effect_id)

    def settles(self, *effect_ids: str, seconds: float = 30) -> None:
        """Wait until these effects, and whatever they caused, are final."""

        def open_ones() -> list[dict[str, Any]]:
            return self.sql(
                "select id from effects where state <> all(%s) and (id = any(%s) or caused_by = any(%s))",
                list(FINAL), list(effect_ids), list(effect_ids),
            )  # fmt: skip

        self.until(lambda: not open_ones(), f"{effect_ids} are settled", seconds)

    # --- reaching a window -------------------------------------------------------------------------------------

    @contextmanager
    def held(self, route: str, effect_id: str = "", *, when: str = "before", times: int = 1) -> Iterator[Barrier]:
        """Stripe (or the mail service, for its routes) holds the next such request, before or after its effect."""
        fake = self.mail if route in ("emails", "before_accept", "after_accept") else self.stripe
        number = fake.fault("barrier", route=route, key=effect_id or None, when=when, times=times)
        barrier = Barrier(self, fake, number)
        try:
            yield barrier
        finally:
            barrier.release()

    @contextmanager
    def locked(self, effect_id: str) -> Iterator[Lock]:
        """The effect's row is locked by somebody else: claim, record and settle wait in front of it."""
        with ExitStack() as stack:
            db = stack.enter_context(psycopg.connect(self.database))
            db.execute("select 1 from effects where id = %s for update", (effect_id,))
            yield Lock(self, db.info.backend_pid)
            db.rollback()


class Barrier:
    """A request that a fake holds."""

    def __init__(self, system: System, fake: FakeServer, number: int) -> None:
        self._system = system
        self._fake = fake
        self._number = number

    def holds(self, requests: int = 1) -> bool:
        faults = self._fake.admin("faults")["faults"]
        return any(f["id"] == self._number and f["holding"] >= requests for f in faults)

    def reached(self, requests: int = 1) -> None:
        self._system.until(lambda: self.holds(requests), "the provider holds the request")

    def release(self) -> None:
        with suppress(OSError):  # the fake may have been killed meanwhile
            self._fake.admin("release", {"id": self._number})


class Lock:
    """A row that somebody else holds, and who waits for it."""

    def __init__(self, system: System, owner: int) -> None:
        self._system = system
        self._owner = owner

    def waiters(self) -> list[Mapping[str, Any]]:
        return list(
            self._system.sql(
                "select pid, query from pg_stat_activity where datname = current_database()"
                " and %s = any(pg_blocking_pids(pid))",
                self._owner,
            )
        )

    def reached(self) -> None:
        self._system.until(self.waiters, "a statement waits for the locked row")

    def forget_waiters(self) -> None:
        """The statement of a process that is dead must not be carried out after all, when the row is free again."""
        for waiter in self.waiters():
            self._system.sql("select pg_terminate_backend(%s)", waiter["pid"])
        until(lambda: not self.waiters(), "nobody waits for the row")
