"""A RabbitMQ node of one test file: killed and started again with what it had stored, asked and told by rabbitmqctl."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.flow import brokers
from tests.flow.waiting import until

CTL_SECONDS = 60


class Rabbit:
    """`kill` and `start` keep ports, name and data."""

    def __init__(self, home: Path) -> None:
        self.port, self._mapper = brokers.free_port(), brokers.free_port()
        self._environment = brokers._rabbit_environment(home, self.port, self._mapper)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        program = shutil.which("rabbitmq-server")
        assert program, brokers.NO_RABBIT
        process = self._process = subprocess.Popen(
            [brokers._unwrapped(program)], env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        until(lambda: brokers._accepts(self.url, process), "RabbitMQ accepts", brokers.RABBIT_START_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the node and all it has started."""
        if self._process is not None:
            brokers._stop_group(self._process)
            self._process = None

    def pause(self, number: signal.Signals) -> None:
        """SIGSTOP or SIGCONT to the whole node."""
        assert self._process
        os.killpg(self._process.pid, number)

    def ctl(self, *words: str) -> str:
        """`rabbitmqctl …`; what it said."""
        program = str(Path(brokers._unwrapped("rabbitmq-server")).with_name("rabbitmqctl"))
        done = subprocess.run(
            [program, "-q", *words], env=self._environment, capture_output=True, text=True, timeout=CTL_SECONDS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        self.kill()
        brokers._stop_mapper(self._mapper)


@contextmanager
def rabbit() -> Iterator[Rabbit]:
    """Running; nothing of it is left behind."""
    home = Path(tempfile.mkdtemp(prefix="counterfoil-rabbit-"))
    made = Rabbit(home)
    try:
        made.start()
        yield made
    finally:
        made.close()
        with suppress(OSError):
            shutil.rmtree(home, ignore_errors=True)
