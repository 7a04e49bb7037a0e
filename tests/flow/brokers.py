"""Brokers of a test's own: a Valkey that can be killed and started again on its port, one RabbitMQ for the run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

import psutil
import redis
from kombu import Connection

from service.embedded import binaries

PASSWORD = "open-sesame"
RABBIT_START_SECONDS = 60.0
NO_RABBIT = "rabbitmq-server is not on PATH: apt-get install rabbitmq-server, then run this again"


def wait_for(condition: Callable[[], object], seconds: float = 20.0, *, what: str = "") -> None:
    """Poll until the condition holds; the only place here that sleeps."""
    until = monotonic() + seconds
    while not condition():
        if monotonic() > until:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Valkey:
    """A Valkey on loopback without persistence; `stop` and `start` keep the port."""

    def __init__(self, directory: Path, *more: str) -> None:
        self._more = more
        self.port = free_port()
        self.password = PASSWORD
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{quote(self.password)}@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(binaries.valkey()), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--requirepass", self.password, "--dir", str(self._directory), "--logfile", str(self._directory / "valkey.log"), *self._more],
        )  # fmt: skip
        wait_for(self._answers, what="Valkey answers")

    def stop(self) -> None:
        """SIGKILL: without persistence there is nothing to save."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


@contextmanager
def valkey() -> Iterator[Valkey]:
    directory = Path(tempfile.mkdtemp(prefix="counterfoil-valkey-"))
    server = Valkey(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of a RabbitMQ with its own name, cookie, ports and port mapper; nothing of it is left behind."""
    program = shutil.which("rabbitmq-server")
    assert program, NO_RABBIT
    home = Path(tempfile.mkdtemp(prefix="counterfoil-rabbitmq-"))
    port, mapper = free_port(), free_port()
    environment = _rabbit_environment(home, port, mapper)
    process = subprocess.Popen(
        [_unwrapped(program)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        url = f"amqp://guest:guest@127.0.0.1:{port}//"
        wait_for(lambda: _accepts(url, process), RABBIT_START_SECONDS, what=f"RabbitMQ accepts, see {home}")
        yield url
    finally:
        _stop_group(process)
        _stop_mapper(mapper)
        shutil.rmtree(home, ignore_errors=True)


def _unwrapped(program: str) -> str:
    """Debian's /usr/sbin/rabbitmq-server insists on the service's user and directories; the real script does not."""
    real = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return str(real) if real.is_file() else program


def _rabbit_environment(home: Path, port: int, mapper: int) -> dict[str, str]:
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nloopback_users.guest = true\nlog.console.level = warning\n"
        # The machine of a test may be short of disk; nothing of this run is large.
        "disk_free_limit.absolute = 1MB\n"
    )
    (home / "enabled_plugins").write_text("[].\n")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"counterfoil{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
    }


def _accepts(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"RabbitMQ ended with {process.returncode}"
    with suppress(OSError), Connection(url, connect_timeout=2) as connection:
        connection.connect()
        return True
    return False


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stop_mapper(port: int) -> None:
    """Erlang's port mapper leaves its session; it is known by the port we gave it."""
    for found in psutil.process_iter(["name"]):
        with suppress(psutil.Error):
            if found.info["name"] == "epmd" and found.environ().get("ERL_EPMD_PORT") == str(port):
                found.kill()
                found.wait(5)


@contextmanager
def sentinel(master: Valkey) -> Iterator[str]:
    """The URL of one Sentinel that watches a Valkey under the name `mymaster`."""
    directory = Path(tempfile.mkdtemp(prefix="counterfoil-sentinel-"))
    port = free_port()
    configuration = directory / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\nlogfile {directory}/sentinel.log\n"
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\nsentinel auth-pass mymaster {master.password}\n"
    )
    process = subprocess.Popen([str(binaries.valkey()), str(configuration), "--sentinel"])
    try:
        wait_for(lambda: _listens(port), what="the Sentinel listens")
        yield f"sentinel://:{master.password}@127.0.0.1:{port}/0?master=mymaster"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a server that accepts and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield int(server.getsockname()[1])
