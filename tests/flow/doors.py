"""Helpers of the doors' tests: a served API over real sockets, a wire to Postgres that can be cut, the command."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from service.core.state import State
from service.store import attempts
from service.store.attempts import Limits, Settlement
from service.store.database import make_engine
from tests.server import ROOT

VISA = "4242424242424242"
CHARGE = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "description": "Order 17"}
EMAIL = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}
PATIENCE_SECONDS = 20.0


def wait_until(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Return when the condition holds; fail when it has not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


class Wire:
    """A TCP forwarder in front of Postgres: `cut` is a server that is gone, `mend` one that is back."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))
        self._pairs: list[socket.socket] = []
        self._serve()

    def cut(self) -> None:
        # A listener that a thread is blocked on lives until that thread wakes: shutdown wakes it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._pairs:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs.clear()

    def mend(self) -> None:
        self._listener = self._listen(self.port)
        self._serve()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        return listener

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._pairs += [near, far]
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    @staticmethod
    def _forward(near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, suppress(OSError, ValueError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    other[end].sendall(data)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Door:
    """A running API: `url`, its log lines so far, and requests to it."""

    process: subprocess.Popen[str]
    database_url: str
    wire: Wire
    host: str = "127.0.0.1"
    port: int = 0
    lines: list[str] = field(default_factory=list)

    def call(
        self, method: str, path: str, body: Any = None, *, headers: Any = None, raw: bytes | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=40)
        try:
            content = raw if raw is not None else json.dumps(body).encode() if body is not None else None
            connection.putrequest(method, path)
            given = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
            if content is not None and "content-type" not in {name.lower() for name, _ in given}:
                given.append(("Content-Type", "application/json"))
            for name, value in given:
                connection.putheader(name, value)
            if content is not None:
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def charge(self, key: str, body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call(
            "POST", "/v1/charges", CHARGE if body is None else body, headers={"Idempotency-Key": key, **named}
        )

    def effect(self, effect_id: str) -> Any:
        return self.call("GET", f"/v1/effects/{effect_id}").json

    def settle(self, effect_id: str) -> None:
        settle(self.database_url, effect_id)


def settle(database_url: str, effect_id: str) -> None:
    """What a worker does to an effect whose provider said yes, through the store's own statements."""
    engine = make_engine(database_url, pooled=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        [attempt] = attempts.claim(connection, [effect_id], Limits(90, 60, 86400), actor="test")
        done = Settlement(
            attempt.id,
            attempt.number,
            State.SUCCEEDED,
            "succeeded",
            in_doubt=False,
            outcome={"ref": f"pi_{effect_id[-12:]}"},
            provider="stripe",
            provider_ref=f"pi_{effect_id[-12:]}",
        )
        assert attempts.settle(connection, [done], actor="test")
    engine.dispose()


def park(database_url: str, effect_id: str) -> None:
    """What a worker does to an effect that needs a person."""
    engine = make_engine(database_url, pooled=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        [attempt] = attempts.claim(connection, [effect_id], Limits(90, 60, 86400), actor="test")
        done = Settlement(
            attempt.id, attempt.number, State.PARKED, "parked", in_doubt=False, parked_reason="contradiction"
        )
        assert attempts.settle(connection, [done], actor="test")
    engine.dispose()


def environment(**settings: str) -> dict[str, str]:
    """The environment of a process that knows these settings and no others."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    names = {f"COUNTERFOIL_{name.upper()}": value for name, value in settings.items()}
    return {**plain, "PYTHONPATH": str(ROOT), "COUNTERFOIL_STATE_DIR": os.environ["COUNTERFOIL_STATE_DIR"], **names}


@contextmanager
def served(database_url: str, **settings: str) -> Iterator[Door]:
    """The API in a process of its own, listening, with its database behind a wire; `settings` beside the usual."""
    wire = Wire(database_url)
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "api", "--port", "0"],
        env=environment(**{"database_url": wire.url, "log_format": "json", **settings}),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    door = Door(process, database_url, wire)
    reader = threading.Thread(target=_read, args=(process, door.lines), daemon=True)
    reader.start()
    try:
        wait_until(lambda: bool(_listening(door.lines)) or process.poll() is not None)
        assert process.poll() is None, door.lines
        door.port = urlsplit(_listening(door.lines)).port or 0
        yield door
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
            reader.join(PATIENCE_SECONDS)
            wire.cut()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stderr
    lines.extend(process.stderr)


def _listening(lines: list[str]) -> str:
    for line in list(lines):
        if '"listening"' in line:
            return str(json.loads(line)["url"])
    return ""


class Shell:
    """Runs `counterfoil` to its end, each time in a process of its own, without a terminal."""

    def __init__(self, folder: Path) -> None:
        self._files = [folder / name for name in ("stdin", "stdout", "stderr")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.flow.preloaded"],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, settings: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        for file, content in zip(self._files, (stdin, "", ""), strict=True):
            file.write_text(content)
        job = {"arguments": arguments, "env": environment(**(settings or {})), "files": [str(f) for f in self._files]}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, self._files[1].read_text(), self._files[2].read_text())

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait(PATIENCE_SECONDS)
