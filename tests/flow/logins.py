"""Logins of one installation, made by the command that makes them anywhere; the API and the tool at work with them."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql as q

from service.embedded import cluster
from service.engine.keys import SCOPES
from service.store import roles
from tests.flow.doors import Answer, Shell
from tests.flow.ear import SECRET
from tests.flow.program import Program
from tests.flow.system import System
from tests.server import Server

_installations = count(1)


@dataclass
class Logins:
    """`urls` by role; called, it asks the database as a role."""

    prefix: str
    urls: dict[str, str]
    owner: str

    def __call__(self, role: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.urls[role], autocommit=True) as db:
            cursor = db.execute(query, values)
            return cursor.fetchall() if cursor.description else []


def made(postgres: Server, database: str) -> Iterator[Logins]:
    """By the command, as somebody who may create roles; gone afterwards."""
    prefix = f"cf{os.getpid()}_{next(_installations)}"
    by = maker(postgres, database)
    done = shell().run("db", "roles", "--execute", "--json", "--prefix", prefix, settings={"database_url": by})
    assert done.returncode == 0, done.stderr
    try:
        yield Logins(prefix, json.loads(done.stdout)["database_urls"], database)
    finally:
        with psycopg.connect(by, autocommit=True) as db:
            for role in roles.ROLES:
                name = q.Identifier(f"{prefix}_{role}")
                db.execute(q.SQL("drop owned by {}").format(name))
                db.execute(q.SQL("drop role {}").format(name))


@cache
def shell() -> Shell:
    """One for the run: each command is a process of its own, forked from one that has everything loaded."""
    folder = tempfile.TemporaryDirectory(prefix="counterfoil-shell-")
    made = Shell(Path(folder.name))
    atexit.register(folder.cleanup)
    atexit.register(made.close)
    return made


def key_of(url: str, tenant: str, *scopes: str) -> str:
    """A new key of the tenant, made on that login; with all scopes unless some are named."""
    words = ("keys", "create", "--name", "n", "--tenant", tenant, *(f"--scope={one}" for one in scopes or SCOPES))
    done = shell().run(*words, "--json", settings={"database_url": url})
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["key"])


def maker(postgres: Server, database: str) -> str:
    """A login that may create roles: the given one, or the superuser of the run's own server."""
    with psycopg.connect(postgres.url, autocommit=True) as db:
        may = db.execute("select rolsuper or rolcreaterole from pg_roles where rolname = current_user").fetchone()
        if may == (True,):
            return database
        folder = db.execute("show data_directory").fetchone()
    assert folder
    word = cluster.password_file(Path(folder[0]), cluster.SUPERUSER)
    if not word.exists():
        pytest.skip("needs a login with CREATEROLE in COUNTERFOIL_TEST_DATABASE_URL")
    parts = urlsplit(database)
    return parts._replace(
        netloc=f"{cluster.SUPERUSER}:{word.read_text().strip()}@{parts.hostname}:{parts.port}"
    ).geturl()


@dataclass
class Api:
    program: Program
    port: int
    key: str

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            connection.request(method, path, raw, given | {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


def tool(system: System, logins: Logins, *arguments: str, codes: tuple[int, ...] = (0,), role: str = "operator") -> Any:
    """What `counterfoil ARGUMENTS --json` says on the login of a role, and that nothing was refused to it."""
    done = shell().run(*arguments, "--json", settings={**system.settings, "DATABASE_URL": logins.urls[role]})
    assert done.returncode in codes, (arguments, done.returncode, done.stdout, done.stderr)
    assert "may not do this" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def api(system: System, logins: Logins) -> Api:
    [key] = tool(system, logins, "keys", "create", "--name", "shop", *(f"--scope={name}" for name in SCOPES))
    more = {"DATABASE_URL": logins.urls["api"], "API_AUTH": "keys", "STRIPE_WEBHOOK_SECRET": SECRET, "API_PORT": "0"}
    program = system.start("api", ["service", "api"], **more)
    system.until(lambda: program.lines("listening"), "the API listens")
    return Api(program, int(program.lines("listening")[0]["url"].rpartition(":")[2]), key["key"])


def refused(system: System) -> list[str]:
    """Lines of the programs that speak of a right that was missing."""
    return [
        line
        for p in system.programs
        for line in p.text().splitlines()
        if "permission denied" in line or "row-level" in line
    ]
