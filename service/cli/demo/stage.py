"""The stage: embedded servers, fake providers, API, relay and workers, all real processes of ours."""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from service import settings
from service.cli.supervisor import Program, Supervisor
from service.embedded.servers import Servers

PROVIDER_LATENCY_MS = 60  # long enough to be killed in the middle of a charge, short enough for a demo
# Everything an attempt needs fits into these, because the provider is near and quick; production's are longer.
TIMES = {
    "COUNTERFOIL_PROVIDER_DEADLINE": "1.1",
    "COUNTERFOIL_LEASE": "4.5",
    "COUNTERFOIL_REDELIVERY": "5",
    "COUNTERFOIL_POLL": "0.5",
}
WORKERS = ("worker-1", "worker-2")


class Admin:
    """A fake's admin port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self) -> dict[str, Any]:
        """What the fake announced."""
        told: dict[str, Any] = json.loads((self._folder / "address.json").read_text())
        return told

    def get(self, path: str) -> Any:
        """GET an admin page."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST to an admin page."""
        return self._call("POST", path, json.dumps(body))

    def _call(self, method: str, path: str, body: str | None) -> Any:
        link = http.client.HTTPConnection("127.0.0.1", int(self.address()["admin_port"]), timeout=10)
        try:
            link.request(method, path, body, {"Content-Type": "application/json"})
            return json.loads(link.getresponse().read())
        finally:
            link.close()


class Stage:
    """Starts everything in order; `with Stage(folder) as stage`."""

    paying_route = "confirm"
    """The call that moves money: where the provider's bad manners hurt."""
    needs_postgres = True

    def __init__(self, folder: Path, on_line: Callable[[str, str], None]) -> None:
        self.folder = folder
        self.servers = Servers(folder / "servers", quick=True, postgres=self.needs_postgres)
        self.stripe = Admin(folder / "stripe")
        self.mail = Admin(folder / "mail")
        self.api_port = free_port()
        self._on_line = on_line
        self._fakes = Supervisor([_fake("stripe", folder, self.stripe), _fake("mail", folder, self.mail)], on_line)
        self.programs: Supervisor

    def __enter__(self) -> Self:
        try:
            self.servers.start()
            self._fakes.start()
            os.environ.update(self.environment())
            settings.load.cache_clear()  # this process asks the database, too
            self.prepare()
            self.programs = Supervisor(self.cast(), self._on_line)
            self.programs.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "programs"):
            self.programs.stop()
        self._fakes.stop()
        self.servers.stop()

    def environment(self) -> dict[str, str]:
        """What every process is told."""
        stripe, mail = self.stripe.address(), self.mail.address()
        addresses = self.servers.addresses
        return {
            "COUNTERFOIL_DATABASE_URL": str(addresses.database_url),
            "COUNTERFOIL_BROKER_URL": str(addresses.broker_url),
            "COUNTERFOIL_STRIPE_API_KEY": "sk_test_demo",
            "COUNTERFOIL_STRIPE_API_BASE": stripe["url"],
            "COUNTERFOIL_EMAIL_URL": mail["http_url"].replace("http://", "resend+http://demo@"),
            "COUNTERFOIL_STATE_DIR": str(self.folder),
            "COUNTERFOIL_API_PORT": str(self.api_port),
            "COUNTERFOIL_LOG_FORMAT": "json",
            **TIMES,
        }

    def prepare(self) -> None:
        """Bring the schema up."""
        from service.store.schema import upgrade

        upgrade()

    def cast(self) -> list[Program]:
        """The programs under the storm."""
        # The API comes last, so that everything else starts up while its probe is waited for.
        commands = {"relay": ["relay"], **{name: ["worker", "-n", f"{name}@%h"] for name in WORKERS}, "api": ["api"]}
        return [
            Program(name, [sys.executable, "-m", "service", *argv], ready=self._api_ready if name == "api" else None)
            for name, argv in commands.items()
        ]

    def holding(self, fault: int) -> int:
        """Requests that the Stripe fake holds at a barrier now."""
        faults = self.stripe.get("/_fake/faults")["faults"]
        return sum(int(one["holding"]) for one in faults if one["id"] == fault)

    def worker_in_the_middle(self) -> str | None:
        """The worker that has charged a card, by the provider's ledger, and not written it down yet."""
        from service.core.state import State
        from service.store import effects, journal
        from service.store.database import statement

        with statement() as connection:
            for row in reversed(self.stripe.get("/_fake/ledger")["money"][-20:]):
                effect_id = row["metadata"]["effect_id"]
                effect = effects.get(connection, effect_id)
                if effect and effect["state"] == State.EXECUTING:
                    claims = [fact for fact in journal.of(connection, effect_id) if fact["fact"] == "claimed"]
                    return self._name_of(int(claims[-1]["actor"].rpartition(":")[2]))
        return None

    def _name_of(self, pid: int) -> str | None:
        return next((name for name in WORKERS if self.programs.pid(name) == pid), None)

    def _api_ready(self) -> bool:
        link = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=2)
        try:
            link.request("GET", "/readyz")
            return link.getresponse().status == 200
        finally:
            link.close()


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _fake(name: str, folder: Path, admin: Admin) -> Program:
    argv = [sys.executable, "-m", "fakes", name, "--state", str(folder / name)]
    if name == "stripe":
        argv += ["--latency-ms", str(PROVIDER_LATENCY_MS)]
    (folder / name).mkdir(parents=True)
    return Program(name, argv, ready=lambda: bool(admin.get("/_fake/health")))
