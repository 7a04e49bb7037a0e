"""Everything that runs in one round: servers, fakes, our programs and the clients, and who starts again what has died.

Nothing of the service is imported here: programs are started, killed and asked like anybody else's.
"""

from __future__ import annotations

import io
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.lineage import Cluster, lineage
from tests.chaos.soak.history import History
from tests.contract.fake_servers import running
from tests.flow import brokers
from tests.flow.nursery import Nursery
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.wires import RabbitWire, ValkeyWire, Wire
from tests.server import Server

POOLS = ("threads", "threads", "prefork", "solo")
CLIENTS = 3
WISHES_PER_SECOND = 8.0  # of each client: two cores can follow, with faults
SECRET = "whsec_soak"
ENDS_BY_ITSELF = "client"
_PROCESSING = (
    "select provider_ref from effects where state = 'awaiting' and provider_ref is not null"
    " and request->>'payment_method' = 'pm_success_de'"
)
_MINUTES_LATER = (
    "begin; update effects set not_before = not_before - interval '10 minutes' where state = 'awaiting';"
    " update outbox set available_at = available_at - interval '10 minutes'"
    " where effect_id in (select id from effects where state = 'awaiting'); commit"
)
_ORDERS = "create table soak_orders (key text primary key)"


@dataclass
class Ground:
    """The servers of all rounds."""

    postgres: Cluster
    valkey: brokers.Valkey
    rabbit: str | None
    nursery: Nursery
    folder: Path
    template: str

    def wire(self, name: str) -> Wire:
        """Raises if that broker is not installed: the caller asked for it by name."""
        if name == "rabbitmq":
            assert self.rabbit, brokers.NO_RABBIT
            return RabbitWire(self.rabbit)
        return ValkeyWire(self.valkey)

    @property
    def server(self) -> Server:
        return Server(self.postgres.url("postgres"))


@contextmanager
def ground(folder: Path, *, rabbit: bool) -> Iterator[Ground]:
    """Postgres that may be killed (so not the test run's), Valkey, RabbitMQ if asked for."""
    with ExitStack() as end:
        cluster = end.enter_context(lineage()).primary
        # Nobody here goes back in time, and the archive of an hour would be gigabytes.
        cluster.ask("alter system set archive_command = 'true'")
        cluster.ask("select pg_reload_conf()")
        valkey = end.enter_context(brokers.valkey())
        rabbit_url = end.enter_context(brokers.rabbitmq()) if rabbit else None
        nursery = Nursery()
        end.callback(nursery.close)
        server = Server(cluster.url("postgres"))
        template = end.enter_context(server.database())
        server.migrate(template)
        with psycopg.connect(server.url_of(template), autocommit=True) as connection:
            connection.execute(_ORDERS)
        yield Ground(cluster, valkey, rabbit_url, nursery, folder, template)


class Installation:
    """The house of one round on a database of its own; `tend` starts again what has died."""

    def __init__(self, ground: Ground, system: System, choose: random.Random, seed: int, folder: Path) -> None:
        self.ground = ground
        self.system = system
        self.restarts: Counter[str] = Counter()
        self.deaths: list[str] = []
        """Who ended by itself: no fault of ours allows that, whatever else is broken."""
        self.folder = folder
        self.ports = [brokers.free_port() for _ in range(2)]
        self._choose = choose
        self._seed = seed
        self._stop = folder / "stop"
        self._starters: dict[str, Callable[[], Program]] = self._roles()
        self.programs: dict[str, Program] = {}
        self.ears = [self._ear(port) for port in self.ports]
        self.tend()
        self.system.until(lambda: all(self._is_up(name) for name in self.programs), "everything is up", 60)

    # --- programs ------------------------------------------------------------------------------------------------

    def _roles(self) -> dict[str, Callable[[], Program]]:
        api = {f"api-{i}": lambda port=port: self._api(port) for i, port in enumerate(self.ports)}
        relays = {f"relay-{i}": self.system.relay for i in range(2)}
        workers = {f"worker-{i}": self._worker for i in range(3)}
        clients = {f"client-{i}": lambda i=i: self._client(f"client-{i}") for i in range(CLIENTS)}
        return {**api, **relays, **workers, "beat": self._beat, **clients}  # type: ignore[dict-item]

    def _api(self, port: int) -> Program:
        return self.system.start("api", ["service", "api", "--port", str(port)], STRIPE_WEBHOOK_SECRET=SECRET)

    def _worker(self) -> Program:
        return self.system.worker(self._choose.choice(POOLS), lanes="charge,email,periodic")

    def _beat(self) -> Program:
        return self.system.start("beat", ["service", "beat"])

    def _client(self, name: str) -> Program:
        doors = [f"http://127.0.0.1:{port}" for port in self.ports]
        words = [name, str(self._seed), str(self.history(name).path), str(self._stop), str(WISHES_PER_SECOND), *doors]
        return self.system.start(name, ["tests.chaos.soak.client", *words])

    def _ear(self, port: int) -> str:
        """Stripe tells both APIs what happened; the endpoint's id, by which it can be made to tell it badly."""
        where = f"http://127.0.0.1:{port}/v1/webhooks/stripe"
        return str(self.system.stripe.admin("webhooks", {"url": where, "secret": SECRET})["id"])

    def the_bank_pays(self) -> None:
        """What Stripe only took note of is done; not while it or the database is down, and nothing twice."""
        rows: list[dict[str, Any]] = []
        with suppress(psycopg.Error):
            rows = self.system.sql(_PROCESSING)
        for row in rows:
            with suppress(OSError):
                self.system.stripe.admin(f"intents/{row['provider_ref']}/finish", {"as": "succeeded"})

    def look_after_what_waits(self) -> None:
        """A webhook that was lost is made up for by asking, minutes later: let those minutes have passed."""
        self.system.sql(_MINUTES_LATER)

    def history(self, client: str) -> History:
        return History(self.folder / f"{client}.jsonl")

    @property
    def clients(self) -> list[str]:
        return [name for name in self._starters if name.startswith(ENDS_BY_ITSELF)]

    def _is_up(self, name: str) -> bool:
        program = self.programs[name]
        if name.startswith("worker"):
            return "ready." in program.text()
        return bool(program.lines("listening")) if name.startswith("api") else program.code is None

    def tend(self) -> None:
        """Start what is not running, as a supervisor would; a client that ended by itself has ended."""
        for name, start in self._starters.items():
            old = self.programs.get(name)
            if old is not None and old.code is None:
                continue
            if old is not None and name in self.clients and old.code == 0:
                continue
            if old is not None:
                self.restarts[name.partition("-")[0]] += 1
                if old.code not in (-signal.SIGKILL, 0):
                    self.deaths.append(f"I10 {old.name} (pid {old.pid}) ended by itself with {old.code}")
            self.programs[name] = start()
            self.programs[name].expected_to_run = False

    # --- the end -------------------------------------------------------------------------------------------------

    def no_more_wishes(self) -> None:
        self._stop.touch()

    def clients_are_done(self) -> bool:
        return all(self.programs[name].code == 0 for name in self.clients)


@contextmanager
def installed(ground: Ground, broker: str, seed: int, folder: Path) -> Iterator[Installation]:
    """Fakes and a database of this round, and everything on them."""
    # What an earlier run of this seed was told is not this run's history.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wire = ground.wire(broker)
    wire.empty()
    with ExitStack() as end:
        fakes = [end.enter_context(running(kind, _made(folder / f"fake-{kind}"))) for kind in ("stripe", "mail")]
        name = end.enter_context(ground.server.database(template=ground.template))
        system = System(ground.server.url_of(name), wire, *fakes, ground.nursery, _made(folder / "programs"))
        end.callback(_close, system)
        yield Installation(ground, system, random.Random(f"{seed} pools"), seed, folder)


def _close(system: System) -> None:
    """Silently: of a red round the logs are among the evidence."""
    with redirect_stdout(io.StringIO()):
        system.close()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
