"""One trial's surroundings: an empty database, an empty broker, a provider of its own, and processes that can be hit.

Postgres and Valkey run once for all; the provider is the fake Stripe over a real socket, and its ledger, which is on
the disk and knows nothing of us, is the only thing that is counted.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.peers.environment import ROOT
from benchmarks.peers.systems import System

LEASE_SECONDS = 7
"""Everybody's lease, where there is one: long enough for a busy machine, short enough for a table in minutes."""
DEADLINE_SECONDS = 2
"""Our provider deadline: a third of the lease, less a second, at the most."""
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.05
VALKEY_DATABASES = 16
T = TypeVar("T")


class Voidable(Exception):
    """The trial did not come about (the machine was too slow, something did not start); it says nothing."""


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Voidable(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(POLL_SECONDS)
    return found


class Provider:
    """The fake Stripe of one trial and its back door."""

    def __init__(self, state: Path, log: Any, *, without_keys: bool) -> None:
        command = [sys.executable, "-m", "fakes", "stripe", "--state", str(state)]
        command += ["--mutant", "forgets_keys"] if without_keys else []
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout
        self.address: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.port = int(urlsplit(self.address["url"]).port or 0)

    def admin(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One call to the back door; with a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address['admin_url']}/_fake/{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.load(answer))

    def effects(self) -> list[int]:
        """The amounts that were taken, in order: the oracle."""
        return [row["amount"] for row in self.admin("ledger")["money"] if row["kind"] == "charge"]

    def requests(self, route: str) -> int:
        """How often this route was asked."""
        return sum(row["route"] == route for row in self.admin("requests")["requests"])

    def hold(self, route: str, when: str) -> int:
        """Hold the next request on this route, before or after its effect."""
        return int(self.admin("faults", {"action": "barrier", "route": route, "when": when, "times": 1})["id"])

    def holding(self, fault: int) -> bool:
        """Whether it is held by now."""
        return any(f["id"] == fault and f["holding"] for f in self.admin("faults")["faults"])

    def release(self, fault: int) -> None:
        """Let it go on."""
        self.admin("release", {"id": fault})


@dataclass
class Hall:
    """What all trials share."""

    database_url: str
    broker_url: str
    peers_python: Path
    folder: Path
    free: queue.SimpleQueue[int]


class Trial:
    """One system in one mode, alone with an empty database and broker."""

    def __init__(self, hall: Hall, system: System, mode: str, number: int, stack: ExitStack) -> None:
        self.system = system
        self.mode = mode
        self._hall = hall
        self._number = number
        self._python = sys.executable if system.ours else str(hall.peers_python)
        self.log = hall.folder / f"{system.name}-{mode}-{number}-{time.time_ns():x}.log"
        self._file = stack.enter_context(self.log.open("ab"))
        self._workers: list[subprocess.Popen[bytes]] = []
        stack.callback(self._end)
        without_keys = mode == "unkeyed" and system.ours
        self.provider = Provider(self.log.with_suffix(".stripe"), self._file, without_keys=without_keys)
        stack.callback(self._close, self.provider.process)
        self._environment = self._settings(stack.enter_context(_database(hall.database_url)))
        self._talker = subprocess.Popen(
            [self._python, "-m", "benchmarks.peers.actor", system.adapter, "talk"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
        )
        stack.callback(self._close, self._talker)

    def _settings(self, database: str) -> dict[str, str]:
        broker = urlunsplit(urlsplit(self._hall.broker_url)._replace(path=f"/{self._number}"))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("COUNTERFOIL_", "PYTHON"))}
        return kept | {
            "PYTHONUNBUFFERED": "1",
            "PEERS_DATABASE": database,
            "PEERS_BROKER": broker,
            "PEERS_PROVIDER": self.provider.address["url"],
            "PEERS_KEYED": "no" if self.mode == "unkeyed" else "yes",
            "PEERS_VARIANT": self.system.variant,
            "PEERS_LEASE_SECONDS": str(LEASE_SECONDS),
            "COUNTERFOIL_DATABASE_URL": database,
            "COUNTERFOIL_BROKER_URL": broker,
            "COUNTERFOIL_STRIPE_API_KEY": "sk_test_peers",
            "COUNTERFOIL_STRIPE_API_BASE": self.provider.address["url"],
            "COUNTERFOIL_PROVIDER_DEADLINE": str(DEADLINE_SECONDS),
            "COUNTERFOIL_LEASE": str(LEASE_SECONDS),
            "COUNTERFOIL_REDELIVERY": str(LEASE_SECONDS + 0.5),
            "COUNTERFOIL_STATE_DIR": str(self._hall.folder),
        }

    # --- the system ----------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> Any:
        """One call of the adapter; what it raised is raised as RuntimeError."""
        assert self._talker.stdin
        assert self._talker.stdout
        self._talker.stdin.write(json.dumps({"call": name, "with": arguments}) + "\n")
        self._talker.stdin.flush()
        line = self._talker.stdout.readline()
        if not line:
            raise Voidable(f"the adapter ended during {name}")
        told = json.loads(line)
        if "raised" in told:
            raise RuntimeError(told["raised"])
        return told["said"]

    def work(self) -> subprocess.Popen[bytes]:
        """A worker in a session of its own."""
        worker = subprocess.Popen(
            [self._python, "-m", "benchmarks.peers.actor", self.system.adapter, "work"],
            cwd=ROOT, env=self._environment, stdout=self._file, stderr=self._file, start_new_session=True,
        )  # fmt: skip
        self._workers.append(worker)
        return worker

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Wait, and not for what can no longer come: a worker that ended by itself ends the trial."""

        def look() -> T:
            if self._workers[-1].poll() is not None:
                raise Voidable(f"waiting until {what}, the worker ended with {self._workers[-1].returncode}")
            return condition()

        return until(look, what)

    def caller_of_provider(self, worker: subprocess.Popen[bytes]) -> psutil.Process:
        """The process, worker or child, that has a connection to the provider: it performs the task."""
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.Error):
                for link in process.net_connections("tcp"):
                    if link.raddr and link.raddr.port == self.provider.port and link.status == "ESTABLISHED":
                        return process
        raise Voidable("no process is connected to the provider")

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        for worker in self._workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(20)

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait(20)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()


@contextmanager
def trial(hall: Hall, system: System, mode: str) -> Iterator[Trial]:
    """A trial and its end, however it went: every process it started is gone."""
    number = hall.free.get()
    try:
        with ExitStack() as stack:
            from redis import Redis

            broker = urlunsplit(urlsplit(hall.broker_url)._replace(path=f"/{number}"))
            with Redis.from_url(broker) as client:
                client.flushdb()
            yield Trial(hall, system, mode, number, stack)
    finally:
        hall.free.put(number)


@contextmanager
def _database(url: str) -> Iterator[str]:
    """An empty database, dropped afterwards."""
    name = f"peers_{time.time_ns():x}_{os.urandom(2).hex()}"
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(SQL("create database {}").format(Identifier(name)))
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(SQL("drop database {} with (force)").format(Identifier(name)))
