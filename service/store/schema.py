"""The schema's version: what the code needs, what the database has, and the way from one to the other."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from service.core.errors import SetupError
from service.store.database import reachable


def _config() -> Config:
    found = find_spec("migrations")
    if found is None or found.origin is None:
        raise SetupError("the package `migrations` is not installed next to `service`: install the whole distribution")
    config = Config()
    config.set_main_option("script_location", str(Path(found.origin).parent).replace("%", "%%"))
    return config


@cache
def code_head() -> str:
    """The migration this code was written for."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def database_head(connection: Connection) -> str | None:
    """The migration the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade() -> None:
    """Bring the database to the code's head; two at once take turns. Raises DependencyUnavailable."""
    with reachable():
        command.upgrade(_config(), "head")
