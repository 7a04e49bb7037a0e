"""On the servers that `counterfoil up` starts, `db roles --execute` works as it stands; where it cannot, it says the next step."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.embedded.servers import Servers
from tests.flow.logins import shell

_LOGINS = {"api", "relay", "worker", "operator"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """As `up` and `demo` start them, with the tables."""
    with Servers(tmp_path_factory.mktemp("up") / "state", valkey=False, quick=True) as servers:
        done = shell().run("db", "upgrade", settings={"state_dir": str(servers.state_dir)})
        assert done.returncode == 0, done.stderr
        yield servers


def tool(up: Servers, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return shell().run(*arguments, settings={"state_dir": str(up.state_dir), **more})


def logins(up: Servers, **more: str) -> Mapping[str, Any]:
    done = tool(up, "db", "roles", "--execute", "--renew", "--json", **more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["database_urls"]
    assert set(found) == _LOGINS
    return dict(found)


def test_the_logins_are_made_and_each_may_do_its_own(up: Servers) -> None:
    urls = logins(up)
    for role in _LOGINS:
        done = tool(up, "db", "check", database_url=urls[role])
        assert done.returncode == 0, (role, done.stderr)
    made = tool(up, "keys", "create", "--name", "n", "--scope", "effects:read", "--json", database_url=urls["operator"])
    assert made.returncode == 0, made.stderr
    assert "may not do this" in tool(up, "keys", "list", database_url=urls["worker"]).stderr


def test_it_works_as_well_when_the_address_is_set_by_hand(up: Servers) -> None:
    assert logins(up, database_url=up.postgres.url)


def test_tables_of_later_versions_are_the_operators_to_read_whoever_has_made_the_roles(up: Servers) -> None:
    urls = logins(up)
    with psycopg.connect(up.postgres.url, autocommit=True) as owner:
        owner.execute("create table of_a_later_version (x int)")
        try:
            with psycopg.connect(urls["operator"]) as db:
                assert db.execute("select count(*) from of_a_later_version").fetchone() == (0,)
            with psycopg.connect(urls["api"]) as db, pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute("select 1 from of_a_later_version")
        finally:
            owner.execute("drop table of_a_later_version")


def test_no_login_becomes_the_owner_or_the_superuser(up: Servers) -> None:
    for role, url in logins(up).items():
        with psycopg.connect(url, autocommit=True) as db:
            for other in ("postgres", "counterfoil"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    db.execute(f"set role {other}")
            found = db.execute(
                "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls from pg_roles"
                " where rolname = current_user"
            ).fetchone()
            assert found == (False,) * 5, role


def test_without_the_superusers_secret_the_next_step_is_a_command_that_works(up: Servers, tmp_path: Path) -> None:
    """Another machine's view: the login is known, the state directory is not."""
    done = shell().run(
        "db", "roles", "--execute", "--prefix", "later",
        settings={"state_dir": str(tmp_path), "database_url": up.postgres.url},
    )  # fmt: skip
    assert done.returncode == 2
    assert up.postgres.url.split(":")[2].split("@")[0] not in done.stderr, "its password is shown"
    said = " ".join(done.stderr.split())
    step = re.search(r"counterfoil db roles --prefix later \| psql -v ON_ERROR_STOP=1 -1 (\S+)", said)
    assert step, said
    sql = tool(up, "db", "roles", "--prefix", "later").stdout
    place = step.group(1).replace("SUPERUSER@", up.postgres.superuser_url.split("//")[1].split("@")[0] + "@")
    with psycopg.connect(place) as db:  # what psql would do with it, in one transaction
        db.execute(sql.encode())
        assert db.execute("select count(*) from pg_roles where rolname like 'later%'").fetchone() == (5,)


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not on PATH: apt-get install postgresql-client")
def test_what_is_printed_is_taken_by_psql(up: Servers) -> None:
    sql = tool(up, "db", "roles", "--prefix", "piped").stdout
    psql = shutil.which("psql")
    assert psql
    url = up.postgres.superuser_url.rpartition("/")[0] + "/counterfoil"
    done = subprocess.run(
        [psql, "-v", "ON_ERROR_STOP=1", "-1", url], input=sql, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
