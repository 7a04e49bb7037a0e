"""Migration 0008 back and forth on a database in use: keys made, logins and policies standing, effects on the books."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from alembic import command

from service.store import roles
from tests.flow.logins import Logins, key_of, made, maker, shell
from tests.migrations.test_guards import Sql
from tests.server import Server

BEFORE, WITH_IT = "0007", "0008"


@pytest.fixture
def used(postgres: Server) -> Iterator[tuple[str, Logins]]:
    """A database of this version with logins, two keys of which one takes over from the other, and an effect."""
    with postgres.database() as name:
        postgres.migrate(name)
        for logins in made(postgres, postgres.url_of(name)):
            key_of(logins.urls["operator"], "acme")
            [old] = logins("operator", "select id from api_keys")
            done = shell().run("keys", "rotate", old[0], "--json", settings={"database_url": logins.urls["operator"]})
            assert done.returncode == 0, done.stderr
            with psycopg.connect(logins.owner, autocommit=True) as connection:
                sql = Sql(connection)
                sql.duty(sql.effect("pending"))
            yield name, logins


def shape(logins: Logins) -> dict[str, list[tuple[object, ...]]]:
    """The keys' table and the webhook's function, as the catalogue has them."""
    with psycopg.connect(logins.owner) as db:
        return {
            query: db.execute(query).fetchall()
            for query in (
                (
                    "select column_name, data_type, is_nullable, column_default from information_schema.columns"
                    " where table_name = 'api_keys' order by ordinal_position"
                ),
                (
                    "select conname, pg_get_constraintdef(oid) from pg_constraint"
                    " where conrelid = 'api_keys'::regclass order by 1"
                ),
                (
                    "select tgname, pg_get_triggerdef(oid) from pg_trigger where tgrelid = 'api_keys'::regclass"
                    " and not tgisinternal order by 1"
                ),
                "select prosecdef, proconfig, md5(prosrc) from pg_proc where proname = 'counterfoil_receive'",
                (
                    "select has_function_privilege('public', oid, 'execute') from pg_proc"
                    " where proname = 'counterfoil_receive'"
                ),
            )
        }


def test_back_and_forth_loses_the_keys_alone_and_the_logins_are_said_again(postgres, used):
    name, logins = used
    alembic, before = postgres.alembic(name), shape(logins)
    with psycopg.connect(logins.owner) as db:
        effects = db.execute("select id, tenant, state, dedupe_key from effects").fetchall()
    command.downgrade(alembic, BEFORE)
    with psycopg.connect(logins.owner) as db:
        assert db.execute("select to_regclass('api_keys')").fetchone() == (None,)
        assert db.execute("select count(*) from pg_proc where proname = 'counterfoil_receive'").fetchone() == (0,)
        assert db.execute("select id, tenant, state, dedupe_key from effects").fetchall() == effects
        # Logins outlive the tables: nothing that was not theirs became theirs.
        assert db.execute(
            "select count(*) from pg_roles where rolname like %s", (f"{logins.prefix}_%",)
        ).fetchone() == (len(roles.ROLES),)
    assert logins("api", "select count(*) from effects") == [(0,)], "still bound to a tenant"
    command.upgrade(alembic, "head")
    assert shape(logins) == before
    with psycopg.connect(logins.owner) as db:
        assert db.execute("select count(*) from api_keys").fetchone() == (0,)
        assert db.execute("select id, tenant, state, dedupe_key from effects").fetchall() == effects
    # What was made anew is nobody's yet, and a program says what to do about it.
    refused = shell().run("keys", "create", "--name", "n", "--scope", "effects:read",
                          settings={"database_url": logins.urls["operator"]})  # fmt: skip
    assert refused.returncode == 7
    assert "counterfoil db roles" in refused.stderr
    again = shell().run("db", "roles", "--execute", "--json", "--prefix", logins.prefix,
                        settings={"database_url": maker(postgres, logins.owner)})  # fmt: skip
    assert (again.returncode, json.loads(again.stdout)["database_urls"]) == (0, {}), again.stderr
    assert key_of(logins.urls["operator"], "acme")
    assert logins("api", "select count(*) from api_keys") == [(1,)]
    for table in ("effects", "outbox", "journal"):
        assert logins("api", f"select count(*) from {table}") == [(0,)], "bound to a tenant"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        logins("api", "update api_keys set scopes = '{charges:write}'")


def test_the_one_step_alone_goes_back_and_forth_with_keys(postgres):
    with postgres.database() as name:
        postgres.migrate(name, revision=WITH_IT)
        alembic = postgres.alembic(name)
        insert = (
            "insert into api_keys (id, tenant, name, hash, scopes, created_by, rotates)"
            " values (%s, 't', 'n', %s, '{effects:read}', 'me', %s)"
        )
        for turn in range(2):
            with psycopg.connect(postgres.url_of(name)) as db:
                db.execute(insert, ("one", f"{turn}" * 64, None))
                db.execute(insert, ("two", f"{turn + 2}" * 64, "one"))
            command.downgrade(alembic, BEFORE)
            command.upgrade(alembic, WITH_IT)
        with psycopg.connect(postgres.url_of(name)) as db:
            assert db.execute("select count(*) from api_keys").fetchone() == (0,)


def test_who_could_keep_an_event_before_may_receive_one_afterwards(postgres, used):
    """0008 takes the insert into the inbox from programs and gives them a function for it."""
    name, logins = used
    alembic = postgres.alembic(name)
    command.downgrade(alembic, BEFORE)
    with psycopg.connect(logins.owner) as db:
        db.execute(f"grant insert on inbox to {logins.prefix}_api")
    command.upgrade(alembic, WITH_IT)
    query = "select has_function_privilege(%s, oid, 'execute') from pg_proc where proname = 'counterfoil_receive'"
    with psycopg.connect(logins.owner) as db:
        assert db.execute(query, (f"{logins.prefix}_api",)).fetchone() == (True,)
        assert db.execute(query, (f"{logins.prefix}_relay",)).fetchone() == (False,)
    command.upgrade(alembic, "head")
