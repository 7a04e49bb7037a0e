"""A Postgres of one test: killed, frozen, started again on its port, with any configuration, on any disk.

A copy of a migrated data directory, so that each costs no initdb and no migration.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg

from service.embedded import binaries, identity
from service.embedded.server import environment
from service.embedded.spawn import spawn
from tests.flow.brokers import free_port
from tests.flow.waiting import until
from tests.server import Server

USER = "postgres"
DATABASE = "counterfoil"
_TEMPLATE = "migrated"
START_SECONDS = 60.0
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 120
shared_buffers = 32MB
wal_level = replica
max_wal_senders = 4
log_min_messages = warning
timezone = UTC
"""
# What a killed server has written the kernel still has; only who cuts the power needs more.
UNSYNCED = "fsync = off\n"


class Postgres:
    """One data directory on one port."""

    def __init__(self, folder: Path, programs: identity.Identity, log: Path, more: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.starts = 0
        self._programs = programs
        self._log = log
        self._more = dict(more)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> Postgres:
        """Until it answers. Children of a postmaster that was killed may hold its memory for a moment more."""
        self._programs.adopt(self.folder)
        self._launch()
        until(self._answers, f"Postgres in {self.folder.name} answers", START_SECONDS)
        self.starts += 1
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is the fast stop, SIGQUIT stops without a checkpoint, SIGKILL asks nobody."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
                self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def vanish(self) -> None:
        """Every process of it at once, backends first: nobody is answered any more, not even by one that was frozen."""
        for process in [*psutil.Process(self.pid).children(), psutil.Process(self.pid)]:
            with suppress(psutil.Error):
                process.kill()
        assert self._process
        self._process.wait(60)
        self._process = None

    def moved_to(self, folder: Path) -> Postgres:
        """The same server on another copy of its files, not started."""
        made = Postgres(folder, self._programs, self._log, self._more)
        made.port = self.port
        return made

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All of its processes keep their connections and answer nobody."""
        everybody = [psutil.Process(self.pid), *psutil.Process(self.pid).children()]
        try:
            for process in everybody:
                process.suspend()
            yield
        finally:
            for process in everybody:
                with suppress(psutil.Error):
                    process.resume()

    def ended(self) -> bool:
        """By itself, as after a PANIC of which it could not recover."""
        return self._process is None or self._process.poll() is not None

    def configure(self, **settings: str | int) -> None:
        """Written down for the next start, and told to a server that runs."""
        with (self.folder / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        if not self.ended():
            os.kill(self.pid, signal.SIGHUP)

    def ask(self, query: str, *values: Any, database: str = DATABASE) -> Any:
        with psycopg.connect(self.url_of(database), autocommit=True) as connection:
            cursor = connection.execute(query, values or None)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def run(self, program: str, *arguments: str) -> None:
        """One of Postgres's own programs, as whom the server runs."""
        _run(self._programs, program, *arguments)

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = spawn(
                self._programs.argv("postgres", "-D", str(self.folder), "-c", f"port={self.port}"),
                env={**environment(), **self._more}, cwd=self.folder, stdout=log,
                owner=self._programs.owner, death_signal=signal.SIGQUIT,
            )  # fmt: skip

    def _answers(self) -> bool:
        if self.ended():
            assert "still in use" in self.log()[-2000:], self.log()[-2000:]
            self._launch()
        with suppress(psycopg.OperationalError):
            return self.ask("select 1", database="postgres") == 1
        return False


class Foundry:
    """Makes servers of one migrated data directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = identity.choose(binaries.postgres(), folder)
        self._made: list[Postgres] = []
        self._template = folder / _TEMPLATE
        self._template.mkdir(mode=0o700)
        self.programs.adopt(self._template)
        _run(
            self.programs, "initdb", "-D", str(self._template), "-U", USER, "-A", "trust", "--encoding=UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip
        with (self._template / "postgresql.auto.conf").open("a") as file:
            file.write(_CONFIGURATION)
        server = Postgres(self._template, self.programs, folder / "template.log", {}).start()
        server.ask(f"create database {DATABASE}", database="postgres")
        Server(server.url_of("postgres")).migrate(DATABASE)
        server.stop()

    @contextmanager
    def server(
        self, configuration: str = UNSYNCED, *, on: Path | None = None, more: Mapping[str, str] | None = None
    ) -> Iterator[Postgres]:
        """A running copy, gone afterwards. `on`: a folder of another file system; `more`: its environment."""
        with tempfile.TemporaryDirectory(prefix="server-", dir=on or self.folder, ignore_cleanup_errors=True) as name:
            home = Path(name)
            self.programs.adopt(home)
            made = self.copy(home, configuration, more=more)
            try:
                yield made.start()
            finally:
                made.stop(signal.SIGKILL)

    def copy(self, home: Path, configuration: str, *, more: Mapping[str, str] | None = None) -> Postgres:
        """A data directory of its own below `home`, not started."""
        folder = home / "data"
        shutil.copytree(self._template, folder)
        with (folder / "postgresql.auto.conf").open("a") as file:
            file.write(configuration)
        return Postgres(folder, self.programs, self.folder / f"{home.name}.log", more or {})


def _run(programs: identity.Identity, program: str, *arguments: str) -> None:
    process = spawn(
        programs.argv(program, *arguments), env=environment(), cwd=Path("/"), stdout=subprocess.PIPE,
        owner=programs.owner,
    )  # fmt: skip
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode(errors="replace")[-2000:]


@contextmanager
def foundry() -> Iterator[Foundry]:
    """For a run, on loopback; nothing of it is left."""
    # Not below pytest's folder, which others may not pass through (as root Postgres runs as somebody else).
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="counterfoil-servers-")))
    try:
        yield Foundry(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
