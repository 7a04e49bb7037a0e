"""`counterfoil up`: everything in one terminal. What is not configured is started: servers, and fakes for providers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import talk
from service.core.errors import ValidationError

if TYPE_CHECKING:
    from service.settings import Settings

NAMES = ("stripe", "mail", "api", "relay", "worker", "beat")


def up(
    only: Annotated[
        str | None, typer.Option(help=f"Some of {','.join(NAMES)}; servers and tables come anyway.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded/--no-embedded", help="Start Postgres and Valkey where no URL is set.")
    ] = True,
) -> None:
    """Run everything in this terminal; Ctrl-C drains it in order, twice kills it."""
    from service import settings
    from service.api.app import refuse_open_door
    from service.cli.plan import programs
    from service.cli.supervisor import Supervisor
    from service.telemetry import logs

    wanted = _wanted(only)
    found = settings.load()
    refuse_open_door(found)
    logs.configure(found.model_copy(update={"log_level": "WARNING"}), process="up")
    with _servers(found, start=embedded):
        _migrate(found)
        chosen = programs(found, wanted, human=sys.stdout.isatty())
        code = Supervisor(chosen).run_forever()
    raise typer.Exit(code)


def _wanted(only: str | None) -> tuple[str, ...]:
    if only is None:
        return NAMES
    asked = tuple(name.strip() for name in only.split(",") if name.strip())
    if not asked or set(asked) - set(NAMES):
        raise ValidationError(f"--only takes some of {','.join(NAMES)}", field="only")
    return tuple(name for name in NAMES if name in asked)


@contextmanager
def _servers(settings: Settings, *, start: bool) -> Iterator[None]:
    """The servers that no URL names, running; nothing is started when both are named."""
    missing = {"postgres": settings.database_url is None, "valkey": settings.broker_url is None}
    if not start or not any(missing.values()):
        settings.database()
        settings.broker()
        yield
        return
    from service.embedded.servers import Servers

    names = " and ".join(name.capitalize() for name, absent in missing.items() if absent)
    talk.say(f"starting embedded {names} in {settings.state_dir}")
    with Servers(settings.state_dir, postgres=missing["postgres"], valkey=missing["valkey"]):
        # The programs look the addresses up by this path, wherever they stand.
        os.environ["COUNTERFOIL_STATE_DIR"] = str(settings.state_dir.resolve())
        yield


def _migrate(settings: Settings) -> None:
    from service.store import schema

    settings.database()
    schema.upgrade()
