"""What a command that looks into the database stands on: the settings, quiet logs on stderr, an id it can parse."""

from __future__ import annotations

import getpass
import os
import re
import socket
import uuid
from typing import TYPE_CHECKING

from service.core.errors import ValidationError

if TYPE_CHECKING:
    from service.settings import Settings

NAME_LENGTH_MAX = 64
_NO_WORD = re.compile(r"[^\w.-]")


def ground() -> Settings:
    """The settings of this run. Raises SettingsError: a wrong setting, or no database. Only warnings are logged."""
    from service import settings
    from service.telemetry import logs

    found = settings.load()
    found.database()
    quiet = found if found.log_level.upper() == "DEBUG" else found.model_copy(update={"log_level": "WARNING"})
    logs.configure(quiet, process="cli")
    return found


def target(settings: Settings) -> str:
    """Where something would happen: the mode, if the key tells it, and the database without its password."""
    from service.cli.config import shown

    where = shown(settings.database_url) or f"embedded, {settings.state_dir}"
    return f"LIVE MODE, {where}" if is_live(settings) else str(where)


def is_live(settings: Settings) -> bool:
    """Whether real money moves here."""
    key = settings.stripe_api_key.get_secret_value() if settings.stripe_api_key else ""
    return key.startswith(("sk_live_", "rk_live_"))


def announce(settings: Settings, what: str) -> None:
    """Say where a write goes before it is done; in red where real money moves."""
    from service.cli import talk

    talk.say(f"{what} at {target(settings)}", style="bold red" if is_live(settings) else None)


def effect_id(text: str) -> str:
    """An effect's id in its one spelling. Raises ValidationError."""
    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        raise ValidationError("an effect's id is a UUID, as `counterfoil effects list` shows it", field="id") from None


def person() -> str:
    """Who is at the keyboard and where, for the journal: `ada@ops-1`, as the login and the machine call themselves."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        name = f"uid-{os.getuid()}"
    # The machine without its domain: with it this reads as a mail address, which logs withhold.
    host = socket.gethostname().partition(".")[0] or "localhost"
    return f"{_word(name)}@{_word(host)}"


def _word(said: str) -> str:
    """One word that a journal can keep: a login comes from the environment, so it may hold anything."""
    return _NO_WORD.sub("-", said)[:NAME_LENGTH_MAX]
