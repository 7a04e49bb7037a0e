"""A real Postgres as our child: durable, on loopback only, with its data in the state directory."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from service.embedded import binaries, cluster, identity, orphans, port
from service.embedded.address import Ownership
from service.embedded.server import Server, environment
from service.embedded.spawn import spawn

if TYPE_CHECKING:  # The driver is loaded only when a database is made, not to start a server.
    from psycopg.sql import Composed

# Fast stop ends sessions and writes a checkpoint; immediate stop leaves recovery to the next start.
_STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 6.0))

_OPTIONS = {
    "listen_addresses": port.LOOPBACK,
    # The data directory itself: mode 0700 already, and, being relative, never too long for a socket's address
    # (107 bytes), however deep the state directory lies.
    "unix_socket_directories": ".",
    # What was committed is on the disk; everything this service promises stands on that.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Workers with threads, relays, the API and a test run beside them.
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_checkpoints": "off",
    # Without DETAIL lines, which repeat whole rows: no address or payload belongs in a log.
    "log_error_verbosity": "terse",
}


class Postgres(Server):
    """The database server. `state_dir` must be absolute and free of links."""

    name = "postgres"
    stop_steps = _STOP_STEPS

    def __init__(
        self,
        state_dir: Path,
        ownership: Ownership,
        announce: Callable[[], None],
        *,
        programs: str | Path | None = None,
        namespaces: bool = True,
        quick: bool = False,
    ) -> None:
        super().__init__(state_dir, ownership, announce)
        self._programs = programs
        self._namespaces = namespaces
        self._quick = quick
        self._identity: identity.Identity | None = None
        self._taken: int | None = None

    @property
    def url(self) -> str:
        """The service's database."""
        return self.database_url(cluster.DATABASE)

    def database_url(self, name: str) -> str:
        """Any database of this server, as the service's role."""
        return self._login(cluster.ROLE, name)

    @property
    def superuser_url(self) -> str:
        """For what only a superuser may do; nothing of the service uses it."""
        return self._login(cluster.SUPERUSER, "postgres")

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Make a database owned by the service's role and return its URL. Nobody may be connected to `template`."""
        from psycopg import sql

        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._administer(statement)
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, ending the sessions that use it; fine if there is none."""
        from psycopg import sql

        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: Composed) -> None:
        import psycopg

        with psycopg.connect(self._login(cluster.ROLE, "postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _login(self, role: str, database: str) -> str:
        password = cluster.password(self.directory, role)
        return f"postgresql://{role}:{password}@{port.LOOPBACK}:{self.port}/{quote(database, safe='')}"

    def _launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        if self._identity is None:
            found = binaries.postgres(self._programs)
            self._identity = identity.choose(found, self.directory.parent, namespaces=self._namespaces)
        orphans.clear(self.directory, self._pid_file)
        for stale in self.directory.glob(".s.PGSQL.*"):
            stale.unlink()
        cluster.prepare(self.directory, self._identity, quick=self._quick)
        self.port = port.settle(self.directory.with_name("postgres.port"), avoid=self._taken)
        options = [word for name, value in _OPTIONS.items() for word in ("-c", f"{name}={value}")]
        return spawn(
            self._identity.argv("postgres", "-D", str(self.directory), "-c", f"port={self.port}", *options),
            env=environment(),
            cwd=self.directory.parent,
            stdout=log,
            owner=self._identity.owner,
            # Immediate stop when we die: the backends leave with it, and recovery is what fsync is for.
            death_signal=signal.SIGQUIT,
        )

    @property
    def _pid_file(self) -> Path:
        return self.directory / "postmaster.pid"

    def _ready(self) -> bool:
        """Read where pg_ctl reads it: line 1 is the process, line 8 its state. No connection, no log line."""
        try:
            lines = self._pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"

    def _again(self, complaint: str) -> bool:
        # The port went between our look and its bind; or backends of a killed postmaster are still leaving.
        self._taken = self.port if "could not create any TCP/IP sockets" in complaint else None
        return self._taken is not None or "pre-existing shared memory block" in complaint
