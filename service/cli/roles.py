"""`counterfoil db roles`: one login for each program, with what it needs and nothing else; printed, or carried out."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlsplit

import typer

from service.cli import exits, talk
from service.cli.ground import ground, person
from service.core.errors import SettingsError, ValidationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.settings import Settings

EXAMPLES = (
    "counterfoil db roles | less",
    "counterfoil db roles --execute --json > logins.json",
    "counterfoil db roles --execute --passwords secrets.txt --prefix staging",
)
# Ours go into a URL as they are.
PASSWORD_BYTES = 24
_PREFIX = re.compile(r"[a-z][a-z0-9_]{0,40}")


def roles(
    execute: Annotated[bool, typer.Option("--execute", help="Carry it out; without it the SQL is printed.")] = False,
    prefix: Annotated[
        str, typer.Option(help="Roles are of the whole cluster: one prefix an installation.")
    ] = "counterfoil",
    passwords: Annotated[
        Path | None, typer.Option(help="Lines of `api=…`, `relay=…`, `worker=…`, `operator=…`; - is stdin.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="New passwords for logins that exist, too.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Make or mend the logins of api, relay, worker and operator. Say it again after each upgrade."""
    chosen = ground()
    from service.store import roles as right
    from service.store.database import transaction

    if not _PREFIX.fullmatch(prefix):
        raise ValidationError("prefix: lower-case letters, digits and _, a letter first", field="prefix")
    given = _given(passwords, right.LOGINS)
    if not execute:
        with transaction() as connection:
            for step in right.steps(prefix, {}, right.place(connection)):
                typer.echo(f"{step.shown};")
        talk.say(f"-- then, in psql: \\password {prefix}_api, and so on; or let --execute make them")
        return
    with _maker(chosen, prefix) as connection:
        made = {**_missing(connection, prefix, renew=renew), **given}
        right.make(connection, prefix, made, right.place(connection), actor=person())
    _show(chosen, prefix, made, as_json=as_json)


@contextmanager
def _maker(chosen: Settings, prefix: str) -> Iterator[Connection]:
    """A transaction of who may make roles: the login that is set, or the superuser of our own embedded server."""
    from service.embedded import superuser
    from service.store import roles as right
    from service.store.database import transaction, transaction_at

    with transaction() as connection:
        if right.may_create(connection):
            yield connection
            return
    url = superuser.url(chosen.state_dir, chosen.database())
    if url is None:
        parts = urlsplit(chosen.database())
        elsewhere = f"{parts.scheme}://SUPERUSER@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise SettingsError(
            "the login in COUNTERFOIL_DATABASE_URL may not create roles. Let one do it that owns the tables and has "
            f"CREATEROLE, or a superuser: counterfoil db roles --prefix {prefix} | "
            f"psql -v ON_ERROR_STOP=1 -1 {elsewhere}",
            field="COUNTERFOIL_DATABASE_URL",
        )
    with transaction_at(url) as connection:
        yield connection


def _given(file: Path | None, names: tuple[str, ...]) -> dict[str, str]:
    if file is None:
        return {}
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    found = dict(line.strip().split("=", 1) for line in text.splitlines() if "=" in line)
    if not found or set(found) - set(names) or not all(found.values()):
        raise ValidationError(f"passwords: lines of NAME=PASSWORD, of {', '.join(names)}", field="passwords")
    return found


def _missing(connection: Connection, prefix: str, *, renew: bool) -> dict[str, str]:
    from service.store import roles as right

    return {
        role: secrets.token_urlsafe(PASSWORD_BYTES)
        for role in right.LOGINS
        if renew or not right.exists(connection, f"{prefix}_{role}")
    }


def _show(chosen: Settings, prefix: str, made: Mapping[str, str], *, as_json: bool) -> None:
    parts = urlsplit(chosen.database())
    place = parts.netloc.rpartition("@")[2]
    urls = {
        role: parts._replace(netloc=f"{prefix}_{role}:{quote(password, safe='')}@{place}").geturl()
        for role, password in made.items()
    }
    if as_json:
        talk.emit({"prefix": prefix, "database_urls": urls})
    for role, url in urls.items() if not as_json else ():
        typer.echo(f"{role}\t{url}")
    shown = "their passwords are shown this once" if urls else "nobody's password was changed"
    talk.say(f"the roles stand; {shown}. Each program gets its own in COUNTERFOIL_DATABASE_URL")
    raise typer.Exit(exits.DONE)
