"""A real Valkey as our child: append-only on the disk, on loopback only, behind a password."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from service.embedded import binaries, orphans, port
from service.embedded.address import Ownership, write_private
from service.embedded.cluster import secret
from service.embedded.server import Server, environment
from service.embedded.spawn import spawn

if TYPE_CHECKING:  # The client is loaded when the first server is asked, not by everybody who looks up an address.
    from redis import Redis

_STOP_STEPS = ((signal.SIGTERM, 10.0),)
_CALL_SECONDS = 5.0

# One directive a line; `quoted` values may hold spaces.
_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {directory}
pidfile {pid_file}
daemonize no
# Its command line stays readable, so that an orphan of ours can be told from a stranger.
set-proc-title no
# Every write is in the file before it is acknowledged, so kill -9 loses nothing; the disk has it within a second. A
# power cut may cost that second of messages, which the outbox publishes again: a flush for every push and every
# acknowledgement would cost more than the message is worth.
appendonly yes
appendfsync everysec
save ""
# Eviction would be silent loss of messages.
maxmemory-policy noeviction
loglevel notice
"""


class Valkey(Server):
    """The broker. `state_dir` must be absolute and free of links."""

    name = "valkey"
    stop_steps = _STOP_STEPS

    def __init__(
        self,
        state_dir: Path,
        ownership: Ownership,
        announce: Callable[[], None],
        *,
        programs: str | Path | None = None,
    ) -> None:
        super().__init__(state_dir, ownership, announce)
        self._programs = programs
        self._taken: int | None = None

    @property
    def url(self) -> str:
        """Database 0, password included."""
        return f"redis://:{self._password}@{port.LOOPBACK}:{self.port}/0"

    def flush(self) -> None:
        """Forget everything, as a broker may: FLUSHALL."""
        with self._client() as client:
            client.flushall()

    @property
    def _password(self) -> str:
        return secret(self.directory.with_name("valkey.password"))

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        program = binaries.valkey(self._programs)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        pid_file = self.directory / "valkey.pid"
        orphans.clear(self.directory, pid_file)
        self.port = port.settle(self.directory.with_name("valkey.port"), avoid=self._taken)
        configuration = self.directory / "valkey.conf"
        text = _CONFIGURATION.format(
            host=port.LOOPBACK,
            port=self.port,
            password=self._password,
            directory=_quoted(self.directory),
            pid_file=_quoted(pid_file),
        )
        write_private(configuration, text)
        # The kernel ends it outright when we die: every acknowledged write is on the disk already.
        return spawn([str(program), str(configuration)], env=environment(), cwd=self.directory, stdout=log)

    def _ready(self) -> bool:
        import redis

        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False  # Not listening yet, or still loading the append-only file.

    def _client(self) -> Redis:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        # No retries: `_ready` asks again by itself, and a broker that is down must be seen to be.
        return redis.Redis.from_url(
            self.url, socket_timeout=_CALL_SECONDS, socket_connect_timeout=_CALL_SECONDS, retry=Retry(NoBackoff(), 0)
        )

    def _again(self, complaint: str) -> bool:
        # The port went between our look and its bind.
        self._taken = self.port if "ddress already in use" in complaint else None
        return self._taken is not None


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
