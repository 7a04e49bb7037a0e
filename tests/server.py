"""One Postgres for the run and many databases on it: made from a template in a few dozen milliseconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
_numbers = count(1)


@dataclass(frozen=True)
class Server:
    """`url` is a login that may create databases."""

    url: str

    def url_of(self, name: str) -> str:
        """The same login, another database."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    @contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """A new database, gone afterwards; yields its name."""
        name = f"counterfoil_test_{os.getpid()}_{next(_numbers)}"
        made_from = sql.Identifier(template or "template1")
        # WAL_LOG: a template this small is copied through the log twice as fast as file by file with a checkpoint.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY WAL_LOG").format(sql.Identifier(name), made_from)
        self._administer(create)
        try:
            yield name
        finally:
            self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def migrate(self, name: str, *, revision: str = "head") -> None:
        """Bring the database to `revision`, up or down."""
        from alembic import command

        move = command.downgrade if revision == "base" else command.upgrade
        move(self.alembic(name), revision)

    def alembic(self, name: str) -> object:
        """Alembic's configuration for one database, silent."""
        from alembic.config import Config

        config = Config(ROOT / "alembic.ini", stdout=open(os.devnull, "w"))  # noqa: SIM115, PTH123 - lives as long
        config.set_main_option("script_location", str(ROOT / "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes["url"] = self.url_of(name)
        return config

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def embedded(state_dir: Path) -> Iterator[Server]:
    """The server of the wheel, as our child."""
    from service.embedded.servers import Servers

    with Servers(state_dir, valkey=False, quick=True) as servers:
        yield Server(servers.postgres.database_url("postgres"))


def external(url: str) -> Server:
    """A server that is there already; the login in `url` must be allowed to create databases."""
    return Server(url)
