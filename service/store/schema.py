"""The schema's version: what the code needs, what the database has, and the way from one to the other."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service import settings
from service.core.errors import SetupError
from service.store import incarnation, journal
from service.store.database import reachable, statement
from service.store.watermark import Watermark

_VERSIONED = text("select to_regclass('alembic_version')::text")
_VERSION = text("select version_num from alembic_version")


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
    # Not through Alembic, which writes two log lines each time: a readiness probe asks every few seconds.
    if connection.execute(_VERSIONED).scalar_one() is None:
        return None
    return connection.execute(_VERSION).scalar_one_or_none()


def upgrade() -> None:
    """Bring the database to the code's head, make the journal's next months, begin its first life; two take turns.

    Raises DependencyUnavailable.
    """
    with reachable():
        command.upgrade(_config(), "head")
    with statement() as connection:
        journal.make_months(connection)
        incarnation.begin(connection, Watermark(settings.load().state_dir).peek(), actor="db upgrade")
