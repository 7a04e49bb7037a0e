"""Real Postgres that can be made to go back in time: a replica promoted too early, a restore to a point, an old copy.

A `Lineage` answers on one port whatever happens to it, as a database behind a name that is moved does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from service.embedded import binaries, identity
from service.embedded.server import environment
from service.embedded.spawn import spawn
from tests.flow.brokers import free_port
from tests.flow.waiting import until

USER = "postgres"
POINT = "before_the_loss"
# Nothing here survives a power cut, and nothing is cut: what a killed server has written the kernel still has.
_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
wal_level = replica
hot_standby = on
max_connections = 120
shared_buffers = 32MB
max_wal_senders = 4
wal_keep_size = 256MB
archive_mode = on
log_min_messages = warning
timezone = UTC
"""


class Cluster:
    """One data directory and, while it runs, its server."""

    def __init__(self, folder: Path, programs: identity.Identity, log: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self, port: int) -> Cluster:
        self.port = port
        self._programs.adopt(self.folder)
        argv = self._programs.argv("postgres", "-D", str(self.folder), "-c", f"port={port}")
        with self._log.open("ab") as log:
            self._process = spawn(
                argv,
                env=environment(),
                cwd=self.folder,
                stdout=log,
                owner=self._programs.owner,
                death_signal=signal.SIGQUIT,
            )
        until(self._answers, f"Postgres in {self.folder.name} answers", 60)
        return self

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is Postgres's fast stop; SIGKILL asks nobody."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def ask(self, query: str, *, database: str = "postgres") -> Any:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(query)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        with suppress(psycopg.OperationalError):
            return self.ask("select 1") == 1
        return False


class Lineage:
    """The database that the service knows, `url`, and the way back in time that was prepared for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = identity.choose(binaries.postgres(), folder)
        self._log = folder / "postgres.log"
        self._archive = folder / "archive"
        self._archive.mkdir()
        self._programs.adopt(self._archive)
        self.port = free_port()
        self._clusters: list[Cluster] = []
        self.primary = self._made("primary")
        self.primary.start(self.port)
        self.primary.ask("create database counterfoil")
        self._replica: Cluster | None = None
        self._copy: Path | None = None

    @property
    def url(self) -> str:
        return self.primary.url("counterfoil")

    def timeline(self) -> int:
        return int(self.primary.ask("select timeline_id from pg_control_checkpoint()"))

    def close(self) -> None:
        for cluster in self._clusters:
            cluster.stop(signal.SIGKILL)

    # --- a replica that lags, and is promoted --------------------------------------------------------------------

    def follow(self) -> None:
        """A streaming replica that has everything."""
        self._replica = self._backup("replica", "-R")
        self._replica.start(free_port())

    def fall_behind(self) -> None:
        """From here on the replica hears nothing."""
        assert self._replica
        replica = self._replica
        known = self.primary.ask("select pg_current_wal_lsn()")
        until(
            lambda: replica.ask(f"select pg_last_wal_replay_lsn() >= '{known}'"),
            "the replica has caught up",
        )
        replica.ask("alter system set primary_conninfo = ''")
        replica.ask("select pg_reload_conf()")
        until(lambda: not self.primary.ask("select count(*) from pg_stat_replication"), "nobody streams any more")

    def fail_over(self) -> None:
        """The primary is gone; the replica takes over its work, its address, and a new timeline."""
        assert self._replica
        self.primary.stop(signal.SIGKILL)
        assert self._replica.ask("select pg_promote()")
        self._replica.stop()
        self.primary = self._replica.start(self.port)

    # --- a backup, restored to a point -----------------------------------------------------------------------------

    def back_up(self) -> None:
        self._replica = self._backup("restored")

    def mark_the_point(self) -> None:
        self.primary.ask(f"select pg_create_restore_point('{POINT}')")

    def restore_to_the_point(self) -> None:
        """The log is all there, and is replayed up to the point only."""
        assert self._replica
        last = self.primary.ask("select pg_walfile_name(pg_switch_wal())")
        until((self._archive / str(last)).exists, "the log is archived")
        self.primary.stop(signal.SIGKILL)
        _configure(
            self._replica.folder,
            f"restore_command = 'cp {self._archive}/%f %p'\nrecovery_target_name = '{POINT}'\n"
            "recovery_target_action = 'promote'\n",
        )
        (self._replica.folder / "recovery.signal").touch()
        self.primary = self._replica.start(self.port)
        until(lambda: self.primary.ask("select not pg_is_in_recovery()"), "the restore is over")

    # --- an old copy of the files, on the same timeline ------------------------------------------------------------

    def copy_the_files(self) -> None:
        """A storage snapshot."""
        self.primary.stop()
        self._copy = self._folder / "copy"
        shutil.copytree(self.primary.folder, self._copy)
        self.primary.start(self.port)

    def put_the_files_back(self) -> None:
        assert self._copy
        self.primary.stop(signal.SIGKILL)
        self.primary = Cluster(self._copy, self._programs, self._log)
        self._clusters.append(self.primary)
        self.primary.start(self.port)

    # --- clusters ----------------------------------------------------------------------------------------------

    def _made(self, name: str) -> Cluster:
        folder = self._empty(name)
        self._run("initdb", "-D", str(folder), "-U", USER, "-A", "trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        _configure(folder, f"{_CONFIGURATION}archive_command = 'cp %p {self._archive}/%f'\n")
        return self._cluster(folder)

    def _backup(self, name: str, *more: str) -> Cluster:
        folder = self._empty(name)
        self._run(
            "pg_basebackup", "-D", str(folder), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-X", "stream",
            "--checkpoint=fast", "--no-sync", *more,
        )  # fmt: skip
        return self._cluster(folder)

    def _empty(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        self._programs.adopt(folder)
        return folder

    def _cluster(self, folder: Path) -> Cluster:
        made = Cluster(folder, self._programs, self._log)
        self._clusters.append(made)
        return made

    def _run(self, program: str, *arguments: str) -> None:
        process = spawn(
            self._programs.argv(program, *arguments), env=environment(), cwd=self._folder, stdout=subprocess.PIPE,
            owner=self._programs.owner,
        )  # fmt: skip
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode(errors="replace")[-2000:]


def _configure(folder: Path, lines: str) -> None:
    with (folder / "postgresql.auto.conf").open("a") as file:
        file.write(lines)


@contextmanager
def lineage() -> Iterator[Lineage]:
    """One for a test, on loopback; nothing of it is left."""
    # Not below pytest's folder, which others may not pass through (as root Postgres runs as somebody else).
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="counterfoil-lineage-")))
    made: Lineage | None = None
    try:
        made = Lineage(folder)
        yield made
    finally:
        if made:
            made.close()
        shutil.rmtree(folder, ignore_errors=True)
