"""Behind PgBouncer in transaction mode, on one connection of the server, no tenant meets the other's rows, nor its name.

Tenants take turns on one backend, by the store's own doors and by hand; whoever comes next inherits nothing, whether the
transaction before was committed, rolled back, refused or its client killed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import text

from service.store import database as store
from service.store import effects, pooler, tenancy
from tests.chaos.servers.pgbouncer import NO_PGBOUNCER, PgBouncer
from tests.conftest import forget_process_state
from tests.flow.doors import CHARGE, served
from tests.flow.logins import Logins, key_of, made
from tests.flow.waiting import until
from tests.server import Server

pytestmark = pytest.mark.skipif(
    not (shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists()), reason=NO_PGBOUNCER
)
ROUNDS = 40
_ID = "01890000-0000-7000-8000-00000000000{}"
_TENANT = "select current_setting('counterfoil.tenant', true)"
_SEEN = "select array_agg(tenant order by tenant) from effects"


class Pooled(PgBouncer):
    """One connection of the server for all, with the login of the API."""

    @property
    def url(self) -> str:
        return f"postgresql://anybody@127.0.0.1:{self.port}/books"


@dataclass
class Ground:
    url: str
    direct: str
    logins: Logins


@contextmanager
def pooled(folder: Path, url: str, *, size: int) -> Iterator[Pooled]:
    server = urlsplit(url)
    books = (
        f"[databases]\nbooks = host=127.0.0.1 port={server.port} dbname={server.path[1:]} user={server.username}"
        f" password={server.password}\n"
    )
    folder.chmod(0o755)
    standing = Pooled(folder, server.port or 5432, size=size, more=f"ignore_startup_parameters = options\n{books}")
    try:
        standing.start()
        yield standing
    finally:
        standing.stop()


@pytest.fixture(scope="module")
def ground(postgres: Server, template: str) -> Iterator[Ground]:
    with postgres.database(template=template) as name, tempfile.TemporaryDirectory() as folder:
        for logins in made(postgres, postgres.url_of(name)):
            with psycopg.connect(logins.owner) as db:
                for number, tenant in enumerate("ab"):
                    db.execute(
                        "insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy) values"
                        " (%s, %s, 'cancel', 'k', %s, '{}', 'pending', 'at_most_once')",
                        (_ID.format(number), tenant, "a" * 64),
                    )
                    db.execute(
                        "insert into outbox (effect_id, kind, lane, road) values (%s, 'cancel', 'charge', 'fresh')",
                        (_ID.format(number),),
                    )
            with pooled(Path(folder), logins.urls["api"], size=1) as standing:
                yield Ground(standing.url, logins.urls["api"], logins)


@pytest.fixture
def own(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is the API behind the pooler."""
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", ground.url)
    forget_process_state()
    yield
    forget_process_state()


def asked(db: psycopg.Connection, query: str) -> object:
    row = db.execute(query).fetchone()
    assert row
    return row[0]


@pytest.mark.usefixtures("own")
def test_two_tenants_take_turns_on_one_connection_and_each_sees_its_own() -> None:
    backends, seen = set(), []
    for turn in range(ROUNDS):
        tenant = "ab"[turn % 2]
        # As requests do: one statement, one transaction, and what comes between them without a tenant.
        for door in (store.statement, store.transaction):
            with tenancy.as_tenant(tenant), door() as connection:
                assert pooler.stands_before(pooler.driver_connection(connection))
                backends.add(connection.execute(text("select pg_backend_pid()")).scalar_one())
                seen.append((tenant, connection.execute(text(_SEEN)).scalar_one()))
                for number, owner in enumerate("ab"):
                    found = effects.get(connection, _ID.format(number), tenant=tenant)
                    assert (found is not None) == (owner == tenant)
            with door() as connection:
                assert connection.execute(text(_SEEN)).scalar_one() is None
                assert connection.execute(text(_TENANT)).scalar_one() in {None, ""}
    assert seen == [(tenant, [tenant]) for tenant, _ in seen]
    assert len(backends) == 1, "they did share it"


@pytest.mark.usefixtures("own")
def test_a_crowd_of_both_tenants_never_sees_the_other() -> None:
    wrong: list[object] = []
    done = []

    def look(tenant: str) -> None:
        for _ in range(ROUNDS):
            with tenancy.as_tenant(tenant), store.statement() as connection:
                found = connection.execute(text(_SEEN)).scalar_one()
            if found != [tenant]:
                wrong.append((tenant, found))
        done.append(tenant)

    crowd = [threading.Thread(target=look, args=("ab"[n % 2],)) for n in range(6)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(60)
    assert (wrong, len(done)) == ([], 6)


@pytest.mark.parametrize("how", ["committed", "rolled back", "refused", "hung up"])
def test_the_next_transaction_inherits_no_tenant(ground: Ground, how: str) -> None:
    with psycopg.connect(ground.url) as one, psycopg.connect(ground.url, autocommit=True) as next_:
        one.execute("select set_config('counterfoil.tenant', 'a', true)")
        backend = asked(one, "select pg_backend_pid()")
        assert asked(one, _SEEN) == ["a"]
        if how == "committed":
            one.commit()
        elif how == "refused":
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                one.execute("delete from effects")
            one.rollback()
        elif how == "rolled back":
            one.rollback()
        else:
            one.close()
        if how == "hung up":  # in the middle of a transaction: PgBouncer throws that connection away
            until(lambda: asked(next_, "select pg_backend_pid()") != backend, "another connection")
        else:
            assert asked(next_, "select pg_backend_pid()") == backend
        assert asked(next_, _TENANT) in {None, ""}
        assert asked(next_, _SEEN) is None


@pytest.mark.usefixtures("own")
def test_a_statement_that_fails_takes_its_tenant_with_it() -> None:
    for door in (store.statement, store.transaction):
        with suppress(ZeroDivisionError), tenancy.as_tenant("a"), door() as connection:
            assert connection.execute(text(_SEEN)).scalar_one() == ["a"]
            raise ZeroDivisionError
        with door() as connection:
            assert connection.execute(text(_SEEN)).scalar_one() is None


def test_what_would_leak_is_a_setting_of_the_session_and_this_test_would_see_it(ground: Ground) -> None:
    """The negative control: `set` without `local` is the next client's as well."""
    with (
        psycopg.connect(ground.url, autocommit=True) as careless,
        psycopg.connect(ground.url, autocommit=True) as next_,
    ):
        careless.execute("select set_config('counterfoil.tenant', 'a', false)")
        assert asked(next_, _SEEN) == ["a"]
        careless.execute("select set_config('counterfoil.tenant', '', false)")
        assert asked(next_, _SEEN) is None


@pytest.mark.slow
def test_the_api_behind_the_pooler_keeps_two_tenants_apart(ground: Ground) -> None:
    keys = {tenant: key_of(ground.logins.owner, tenant) for tenant in ("c", "d")}
    with served(ground.url, api_auth="keys") as door:

        def ask(tenant: str, method: str, path: str, body: object = None, **more: str) -> tuple[int, dict[str, object]]:
            headers = {"Authorization": f"Bearer {keys[tenant]}", **{k.replace("_", "-"): v for k, v in more.items()}}
            answer = door.call(method, path, body, headers=headers)
            return answer.status, dict(answer.json)

        made = {t: str(ask(t, "POST", "/v1/charges", CHARGE, Idempotency_Key="order:1")[1]["id"]) for t in ("c", "d")}
        for turn in range(ROUNDS):
            mine, other = ("c", "d") if turn % 2 else ("d", "c")
            status, page = ask(mine, "GET", "/v1/effects")
            assert (status, [row["id"] for row in page["effects"]]) == (200, [made[mine]])  # type: ignore[attr-defined]
            assert ask(mine, "GET", f"/v1/effects/{made[mine]}")[0] == 200
            assert ask(mine, "GET", f"/v1/effects/{made[other]}")[0] == 404
