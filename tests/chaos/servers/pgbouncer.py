"""A PgBouncer of one test in transaction mode: each transaction of a client may run on another connection of the server."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from service.embedded.spawn import spawn
from tests.chaos.servers.postgres import DATABASE, USER
from tests.flow.brokers import free_port
from tests.flow.waiting import until

NO_PGBOUNCER = "pgbouncer is not on PATH: apt-get install pgbouncer, then run this again"
# It refuses to run as root, and reads and writes nothing but its own folder.
_AS_ROOT_RUN_AS = "nobody"
_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 300
default_pool_size = {size}
server_login_retry = 0.2
query_wait_timeout = {wait}
{more}
"""


class PgBouncer:
    """In front of the Postgres on port `server`; `stop` and `start` keep the port."""

    def __init__(self, folder: Path, server: int, *, size: int = 5, wait: float = 120, more: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._file = folder / "pgbouncer.ini"
        self._file.write_text(
            _CONFIGURATION.format(server=server, port=self.port, size=size, wait=wait, user=USER, more=more)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        as_whom = ["-u", _AS_ROOT_RUN_AS] if _root() else []
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = spawn([program, *as_whom, str(self._file)], cwd=self._folder, stdout=log)
        until(self._answers, "PgBouncer answers", 20)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def log(self) -> str:
        return (self._folder / "pgbouncer.log").read_text(errors="replace")

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log()[-2000:]
        with suppress(psycopg.OperationalError), psycopg.connect(self.url):
            return True
        return False


def _root() -> bool:
    import os

    return os.geteuid() == 0


@contextmanager
def pgbouncer(server: int, *, size: int = 5, wait: float = 120, more: str = "") -> Iterator[PgBouncer]:
    """Running in front of that port, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-pgbouncer-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        made = PgBouncer(Path(folder), server, size=size, wait=wait, more=more)
        try:
            made.start()
            yield made
        finally:
            made.stop()
