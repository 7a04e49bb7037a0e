"""`counterfoil config show`: every setting, its value without secrets, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import typer

from service.cli import talk
from service.cli.exits import examples

if TYPE_CHECKING:
    from service.settings import Settings

HIDDEN = "***"
_SECRET_PARAMETER = re.compile(r"pass|secret|key|token", re.IGNORECASE)
_KEY_KIND = re.compile(r"(?:sk|rk)_(?:test|live)_|whsec_")

app = typer.Typer(help="The settings of this process.", no_args_is_help=True)


@app.command(
    "show",
    epilog=examples(
        "counterfoil config show", "counterfoil config show --json", "COUNTERFOIL_LEASE=60 counterfoil config show"
    ),
)
def show(as_json: talk.Json = False) -> None:
    """Show every setting with its source: environment, embedded or default. Secrets are hidden."""
    from service import settings

    talk.table(entries(settings.load()), ("name", "value", "source"), as_json=as_json)


def entries(settings: Settings) -> Iterator[dict[str, Any]]:
    """Name, shown value and source of each setting, in the order of the class."""
    from pydantic import SecretStr

    from service.embedded import address

    running = address.running(settings.state_dir)
    for field in type(settings).model_fields:
        name = f"COUNTERFOIL_{field.upper()}"
        value = getattr(settings, field)
        source = "environment" if os.environ.get(name) else "default"
        if value is None and running is not None and getattr(running, field, None):
            value, source = SecretStr(getattr(running, field)), "embedded"
        yield {"name": name, "value": shown(value), "source": source}


def shown(value: Any) -> Any:
    """A value as it may be shown to anybody."""
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        kind = _KEY_KIND.match(secret)
        return url_without_secrets(secret) if "://" in secret else f"{kind.group() if kind else ''}{HIDDEN}"
    if isinstance(value, str) and "://" in value:
        return url_without_secrets(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def url_without_secrets(url: str) -> str:
    """Each of the URLs (Sentinels come as several) without password; a lone user of `resend+https` is an API key."""
    return ";".join(_hide(urlsplit(part)) for part in url.split(";"))


def _hide(parts: SplitResult) -> str:
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    if password:
        login = f"{user}:{HIDDEN}"
    elif parts.scheme.startswith("resend"):
        login = HIDDEN
    query = urlencode(
        [(name, HIDDEN if _SECRET_PARAMETER.search(name) else value) for name, value in parse_qsl(parts.query)],
        safe="*/",
    )
    return urlunsplit(parts._replace(netloc=f"{login}{at}{host}", query=query))
