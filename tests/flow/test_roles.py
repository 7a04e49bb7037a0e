"""Every program runs with its own login, and the house works; what each may not do, Postgres refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from service.store import control_tables, roles
from tests.flow.doors import CHARGE
from tests.flow.ear import event, header
from tests.flow.logins import Logins, api, made, maker, refused, shell, tool
from tests.flow.system import System
from tests.server import Server

_SOMEBODY = "01890000-0000-7000-8000-0000000000aa"


@pytest.fixture
def logins(postgres: Server, database: str) -> Iterator[Logins]:
    yield from made(postgres, database)


@pytest.fixture(scope="module")
def standing(postgres: Server, template: str) -> Iterator[Logins]:
    """Logins of a database with one effect of the tenant `a`, one of `b`."""
    with postgres.database(template=template) as name:
        url = postgres.url_of(name)
        for found in made(postgres, url):
            for tenant, effect in (("a", _SOMEBODY), ("b", _SOMEBODY.replace("aa", "bb"))):
                _accept(url, tenant, effect)
            yield found


def _accept(url: str, tenant: str, effect: str) -> None:
    with psycopg.connect(url) as db:
        db.execute(
            "insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy)"
            " values (%s, %s, 'cancel', 'k', %s, '{}', 'pending', 'at_most_once')",
            (effect, tenant, "a" * 64),
        )
        db.execute(
            "insert into outbox (effect_id, kind, lane, road) values (%s, 'cancel', 'charge', 'fresh')", (effect,)
        )
        db.execute("insert into journal (effect_id, fact, attempt, actor) values (%s, 'accepted', 0, 't')", (effect,))


# --- the house at work -----------------------------------------------------------------------------------------------


def test_the_main_job_with_every_program_on_its_own_login(system: System, logins: Logins) -> None:
    system.relay(DATABASE_URL=logins.urls["relay"])
    system.worker(lanes="charge,email,periodic", DATABASE_URL=logins.urls["worker"])
    system.start("beat", ["service", "beat"], DATABASE_URL=logins.urls["relay"])
    door = api(system, logins)
    paid = door(
        "POST", "/v1/charges", {**CHARGE, "receipt_email": "ada@example.test"}, Idempotency_Key="o:1", Prefer="wait=20"
    )
    assert (paid.status, paid.json["state"]) == (200, "succeeded"), paid.raw
    again = door("POST", "/v1/charges", {**CHARGE, "receipt_email": "ada@example.test"}, Idempotency_Key="o:1")
    assert (again.json["id"], again.headers["idempotent-replayed"]) == (paid.json["id"], "true")
    declined = {**CHARGE, "payment_method": "pm_card_visa_chargeDeclined"}
    assert door("POST", "/v1/charges", declined, Idempotency_Key="o:2", Prefer="wait=20").json["state"] == "failed"
    wish = {"charge": paid.json["id"], "amount": 1200, "currency": "eur"}
    assert door("POST", "/v1/refunds", wish, Idempotency_Key="o:1:r", Prefer="wait=20").json["state"] == "succeeded"
    batch = [{"kind": "charge", "idempotency_key": f"b:{n}", "request": CHARGE} for n in range(5)]
    results = door("POST", "/v1/batch", {"items": batch, "atomic": True}).json["results"]
    system.settles(paid.json["id"], *(row["id"] for row in results))
    assert len(door("GET", "/v1/effects").json["effects"]) >= 8
    assert door("GET", f"/v1/effects/{paid.json['id']}/events").json["events"][0]["actor"].startswith("key:cfk_")
    assert (
        door("GET", "/v1/outbox/stats").status
        == door("GET", "/v1/groups").status
        == door("GET", "/readyz").status
        == 200
    )
    # A webhook belongs to no tenant and finds its effect.
    body = event({"object": "payment_intent", "id": system.effect(paid.json["id"])["provider_ref"]})
    assert door("POST", "/v1/webhooks/stripe", body, Stripe_Signature=header(body)).status == 200
    system.oracle.check()
    assert refused(system) == []


def test_a_stuck_charge_is_replayed_by_the_operator_and_by_the_api(system: System, logins: Logins) -> None:
    system.relay(DATABASE_URL=logins.urls["relay"])
    worker = system.worker(DATABASE_URL=logins.urls["worker"], ATTEMPT_BUDGET="1")
    door = api(system, logins)
    ids = []
    for number in range(2):
        system.stripe.fault("status_429", route="create", times=1)
        ids.append(door("POST", "/v1/charges", CHARGE, Idempotency_Key=f"stuck:{number}").json["id"])
        system.reaches(ids[-1], "parked")
    worker.kill()
    system.worker(DATABASE_URL=logins.urls["worker"])
    tool(system, logins, "outbox", "replay", "--id", ids[0], "--execute", "--reason", "tried again", "--yes")
    plan = door("POST", "/v1/operations", {"verb": "replay", "select": {"ids": [ids[1]]}}).json
    assert plan["eligible"] == 1
    assert door("POST", f"/v1/operations/{plan['id']}/start", {"reason": "tried again"}).status in (200, 202)
    system.settles(*ids)
    assert [system.state(one) for one in ids] == ["succeeded", "succeeded"]
    system.oracle.check()
    assert refused(system) == []


def test_the_operators_tool_does_its_work_with_its_own_login(system: System, logins: Logins) -> None:
    effect = system.charge()
    system.relay(DATABASE_URL=logins.urls["relay"])
    system.worker(DATABASE_URL=logins.urls["worker"])
    system.settles(effect)
    for words in (("effects", "list"), ("effects", "show", effect), ("effects", "verify", effect), ("outbox", "stats"),
                  ("db", "check"), ("keys", "create", "--name", "n", "--scope", "effects:read"), ("keys", "list")):  # fmt: skip
        tool(system, logins, *words)
    # 1 is "breaks found": the fake may have money of other tests. What counts is that this login can finish an audit.
    [report] = tool(system, logins, "audit", "--lag", "0", codes=(0, 1))
    assert report["audit"] == system.sql("select max(id) as id from audits where finished_at is not null")[0]["id"]
    [key] = tool(system, logins, "keys", "list")
    tool(system, logins, "keys", "rotate", key["id"], "--grace", "1h")
    tool(system, logins, "keys", "revoke", key["id"])
    seen = [row["verb"] for row in system.sql("select verb from actions where subject like 'cfk_%%' order by id")]
    assert seen == ["keys create", "keys rotate", "keys revoke"]
    system.oracle.check()


def test_a_database_that_went_back_is_closed_by_any_login_and_opened_by_the_operators(
    system: System, logins: Logins
) -> None:
    """The drill of docs/recover.md, nobody being the owner: notice, release, and adopt what was forgotten."""
    programs = {"relay": system.relay, "worker": system.worker}
    running = [start(DATABASE_URL=logins.urls[role]) for role, start in programs.items()]
    lost = system.charge(dedupe_key="lost:1")
    system.settles(lost)
    for program in running:
        program.kill()
    for table, column in (("journal", "effect_id"), ("effects", "id")):
        system.sql(f"alter table {table} disable trigger user")
        system.sql(f"delete from {table} where {column} = %s", lost)
        system.sql(f"alter table {table} enable trigger user")
    waiting = system.charge()
    for role, start in programs.items():
        start(DATABASE_URL=logins.urls[role])
    system.until(lambda: system.sql("select 1 from incarnations where released_at is null"), "it is closed")
    assert system.state(waiting) == "pending"
    for role in ("worker", "relay", "api"):
        done = shell().run("recover", "--execute", "--reason", "r",
                           settings={**system.settings, "DATABASE_URL": logins.urls[role]})  # fmt: skip
        assert (done.returncode, "may not do this" in done.stderr) == (7, True), (role, done.stderr)
    assert system.state(waiting) == "pending"
    [plan] = tool(system, logins, "recover")
    assert (plan["quarantined"], plan["released"]) == (True, False)
    [told] = tool(system, logins, "recover", "--execute", "--reason", "a drill")
    assert lost in [orphan["effect_id"] for orphan in told["orphans_listed"]]
    again = system.charge(dedupe_key="lost:1")
    system.settles(waiting, again)
    assert [system.state(one) for one in (waiting, again)] == ["succeeded", "succeeded"]
    assert [system.charged(one) for one in (lost, again, waiting)] == [1, 0, 1], "its money was found again"
    assert refused(system) == []


# --- what each may not -----------------------------------------------------------------------------------------------

_EFFECT = f"'{_SOMEBODY}'"
FORBIDDEN = [
    *((role, f"delete from {table}") for role in roles.ROLES if role in roles.LOGINS for table in ("effects", "journal", "incarnations", "api_keys", "actions")),
    *((role, f"truncate {table}") for role in roles.LOGINS for table in ("effects", "outbox", "journal")),
    *((role, "update journal set actor = 'x'") for role in roles.LOGINS),
    *((role, f"update effects set {column} = {column}") for role in roles.LOGINS for column in ("dedupe_key", "amount", "fingerprint", "tenant")),
    *((role, "alter table effects disable trigger all") for role in roles.LOGINS),
    *((role, "alter table effects disable row level security") for role in roles.LOGINS),
    *((role, "create table mine (x int)") for role in roles.LOGINS),
    *((role, "drop table effects") for role in roles.LOGINS),
    *((role, f"set role {other}") for role, other in (("api", "{prefix}_worker"), ("worker", "{prefix}_operator"))),
    ("api", "update effects set state = 'succeeded'"), ("api", "update effects set not_before = null"),
    ("api", "update outbox set available_at = now()"), ("api", "delete from outbox"),
    ("api", "insert into inbox (provider, event_id, type, object_id, object_type, event_at) values ('stripe','e','t','o','charge',now())"),
    ("api", "insert into api_keys (id, tenant, name, hash, scopes, created_by) values ('k','t','n',repeat('a',64),'{{effects:read}}','me')"),
    ("api", "update api_keys set scopes = '{{charges:write}}'"), ("api", "update api_keys set revoked_at = null"),
    ("api", "select 1 from actions"), ("api", "select 1 from breaks"), ("api", "select 1 from journal_rest"),
    ("api", "select counterfoil_journal_drop('journal_first', now())"),
    ("relay", "select request from effects"), ("relay", "select * from effects"), ("relay", "select progress from effects"),
    ("relay", "select outcome from effects"), ("relay", "select evidence from journal"), ("relay", "delete from outbox"),
    ("relay", "update effects set outcome = '{{}}'"), ("relay", "update effects set first_sent_at = null"),
    ("relay", "select 1 from inbox"), ("relay", "update lanes set paused_at = null"), ("relay", "select 1 from api_keys"), ("relay", "select 1 from emails"),
    ("relay", "insert into effects (id) values (gen_random_uuid())"),
    ("worker", "select 1 from api_keys"), ("worker", "update incarnations set released_at = now()"),
    ("worker", "insert into operations (id) values (gen_random_uuid())"), ("worker", "update lanes set paused_at = null"),
    ("worker", "select actor from actions"), ("worker", "select detail from actions"),
    ("operator", "update actions set actor = 'x'"), ("operator", "update effects set caused_by = null"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN, ids=[f"{r}: {s[:70]}" for r, s in FORBIDDEN])
def test_what_a_login_may_not_do_is_refused(standing: Logins, role: str, statement: str) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue)) as found:
        standing(role, statement.format(prefix=standing.prefix))
    assert isinstance(found.value, psycopg.errors.InsufficientPrivilege)


# --- tenants, for the API's login ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["effects", "outbox", "journal"])
def test_without_a_tenant_the_api_sees_nothing_and_with_one_its_own(standing: Logins, table: str) -> None:
    assert standing("api", f"select count(*) from {table}") == [(0,)]
    with psycopg.connect(standing.urls["api"]) as db:
        db.execute("select set_config('counterfoil.tenant', 'a', true)")
        assert db.execute(f"select count(*) from {table}").fetchone() == (1,)
        db.commit()
        # The transaction is over, and so is the tenant: the next user of a pooled session inherits nothing.
        assert db.execute(f"select count(*) from {table}").fetchone() == (0,)
    assert standing("operator", f"select count(*) from {table}") == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        (
            "insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy)"
            " values (gen_random_uuid(), 'b', 'cancel', 'x', repeat('a', 64), '{}', 'pending', 'at_most_once')"
        ),
        f"insert into journal (effect_id, fact, attempt, actor) values ({_EFFECT}, 'settled', 1, 'me')",
        (
            f"insert into operation_items (operation_id, effect_id, position, seen_state, seen_attempt)"
            f" values (gen_random_uuid(), '{_SOMEBODY.replace('aa', 'bb')}', 1, 'parked', 1)"
        ),
    ],
    ids=["another's effect", "a fact that is no acceptance", "another's effect in an operation"],
)
def test_the_api_writes_nothing_for_another_tenant(standing: Logins, statement: str) -> None:
    with psycopg.connect(standing.urls["api"]) as db:
        db.execute("select set_config('counterfoil.tenant', 'a', true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(statement)


def test_other_logins_are_not_concerned_by_row_level_security(standing: Logins) -> None:
    for role in ("relay", "worker", "operator"):
        assert standing(role, "select count(*) from outbox") == [(2,)]
    with psycopg.connect(standing.owner) as db:
        assert db.execute("select count(*) from effects").fetchone() == (2,)


# --- the table of rights -----------------------------------------------------------------------------------------------


def test_every_table_view_and_function_of_ours_is_listed(standing: Logins) -> None:
    with psycopg.connect(standing.owner) as db:
        found = {
            row[0]
            for row in db.execute(
                "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')"
                " and not relispartition"
            )
        }
        functions = {
            row[0]
            for row in db.execute(
                "select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef"
            )
        }
    assert found == set(roles.GRANTS), "a table that is not listed is nobody's, or one is listed that is not there"
    assert functions == set(roles.FUNCTIONS)
    assert set(control_tables.metadata.tables) <= found
    assert {name for rights in roles.GRANTS.values() for name in rights} == set(roles.ROLES)


def test_said_again_it_changes_nothing_and_shows_no_password(standing: Logins, postgres: Server) -> None:
    done = shell().run(
        "db",
        "roles",
        "--execute",
        "--json",
        "--prefix",
        standing.prefix,
        settings={"database_url": maker(postgres, standing.owner)},
    )
    assert (done.returncode, json.loads(done.stdout)["database_urls"]) == (0, {}), done.stderr
    assert standing("api", "select 1") == [(1,)]


def test_without_execute_the_sql_is_printed_and_nothing_is_made(standing: Logins) -> None:
    done = shell().run("db", "roles", "--prefix", "nobody_yet", settings={"database_url": standing.owner})
    assert done.returncode == 0, done.stderr
    assert "create role nobody_yet_api login" in done.stdout
    assert "password '" not in done.stdout
    with psycopg.connect(standing.owner) as db:
        assert db.execute("select count(*) from pg_roles where rolname like 'nobody_yet%'").fetchone() == (0,)
