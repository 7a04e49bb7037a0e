"""The embedded servers of one state directory: started together, found by others, stopped together.

    with Servers(Path(".counterfoil")) as servers:
        servers.postgres.url, servers.valkey.url

One live process owns a state directory at a time. If the owner dies without stopping them, the servers die with
it (Linux) or are stopped by the next owner; the data stays and is found again by the next start.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from service.core.errors import SetupError
from service.embedded.address import Addresses, Ownership, announce, withdraw
from service.embedded.postgres import Postgres
from service.embedded.server import Server
from service.embedded.valkey import Valkey

_PRIVATE_FOLDER = 0o700


class Servers:
    """Real Postgres and Valkey as child processes of ours.

    `postgres_bin` and `valkey_bin` name programs to use instead of the wheels'. `quick` skips the sync of the
    freshly made cluster (tests). `namespaces=False` keeps root from trying a user namespace.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        postgres: bool = True,
        valkey: bool = True,
        postgres_bin: str | Path | None = None,
        valkey_bin: str | Path | None = None,
        quick: bool = False,
        namespaces: bool = True,
    ) -> None:
        # Absolute and free of links: the servers change directory, and orphans are known by the true path.
        self.state_dir = Path(os.path.realpath(state_dir))
        self._ownership = Ownership(self.state_dir)
        self._up = False
        self.postgres = Postgres(
            self.state_dir, self._ownership, self._announce, programs=postgres_bin, namespaces=namespaces, quick=quick
        )
        self.valkey = Valkey(self.state_dir, self._ownership, self._announce, programs=valkey_bin)
        wanted: list[tuple[bool, Server]] = [(postgres, self.postgres), (valkey, self.valkey)]
        self._wanted = [server for chosen, server in wanted if chosen]

    def start(self) -> Addresses:
        """Start what is not running and say where it answers. Raises SetupError: one sentence with the fix."""
        if not self._ownership.held:
            self._own()
        try:
            for server in self._wanted:
                server.start()
        except BaseException:
            self.stop()
            raise
        self._up = True
        self._announce()
        return self.addresses

    def stop(self) -> None:
        """Stop all in reverse order and give the state directory free; nothing of ours is left running."""
        # A forked child inherits this object and the exit handler, but not the servers.
        if not self._ownership.held:
            return
        self._up = False
        withdraw(self.state_dir)
        try:
            for server in reversed(self._wanted):
                server.stop()
        finally:
            self._ownership.release()
            atexit.unregister(self.stop)

    @property
    def addresses(self) -> Addresses:
        """The URLs of the servers that were asked for."""
        return Addresses(
            self.postgres.url if self.postgres in self._wanted else None,
            self.valkey.url if self.valkey in self._wanted else None,
        )

    def _own(self) -> None:
        try:
            self.state_dir.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            self._ownership.take()
        except OSError as error:
            raise SetupError(
                f"the state directory {self.state_dir} cannot be used ({error.strerror}): "
                "choose another COUNTERFOIL_STATE_DIR"
            ) from error
        atexit.register(self.stop)

    def _announce(self) -> None:
        """Called after each start of one server too: it may have had to move to another port."""
        if self._up:
            announce(self.state_dir, self.addresses)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
