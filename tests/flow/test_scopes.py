"""Every route with every scope, written out; and each write leaves one row that names its key and never holds its secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from service.api.submission import SCOPES as SCOPE_OF_KIND
from service.engine import keys
from service.engine.keys import SCOPES, Created
from tests.flow.doors import CHARGE, EMAIL, Answer, Door, park, served
from tests.server import Server

_NOBODY = "019a2f6e-0000-7000-8000-000000000017"
ANY_KEY, NO_KEY = "any key", "no key"

# What each route asks for. Written out, and not read from the routes: one that asks for less is a line that differs.
EXPECTED = {
    "create_charge": "charges:write",
    "create_email": "emails:write",
    "create_refund": "refunds:write",
    "create_capture": "refunds:write",
    "create_cancel": "refunds:write",
    "create_batch": ANY_KEY,  # each item asks for its own, below
    "get_effect": "effects:read",
    "list_events": "effects:read",
    "list_effects": "effects:read",
    "plan_operation": "operations:write",
    "list_operations": "operations:read",
    "get_operation": "operations:read",
    "list_items": "operations:read",
    "start_operation": "operations:write",
    "pause_operation": "operations:write",
    "resume_operation": "operations:write",
    "cancel_operation": "operations:write",
    "outbox_stats": "operations:read",
    "list_groups": "operations:read",
    "note_group": "operations:write",
    "livez": NO_KEY,
    "readyz": NO_KEY,
    "stripe_webhook": NO_KEY,  # signed
}
OF_ITEM = {
    "charge": "charges:write",
    "email": "emails:write",
    "refund": "refunds:write",
    "capture": "refunds:write",
    "cancel": "refunds:write",
}
_WISH = {"charge": CHARGE, "email": EMAIL, "refund": {"charge": _NOBODY, "amount": 1, "currency": "eur"},
         "capture": {"charge": _NOBODY, "amount": 1, "currency": "eur"}, "cancel": {"charge": _NOBODY}}  # fmt: skip


@pytest.fixture(scope="module")
def url(postgres: Server, template: str) -> Iterator[str]:
    with postgres.database(template=template) as name:
        yield postgres.url_of(name)


@pytest.fixture(scope="module")
def door(url: str) -> Iterator[Door]:
    with served(url, api_auth="keys") as running:
        yield running


@pytest.fixture(autouse=True)
def own(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process works on the door's database."""
    from tests.conftest import forget_process_state

    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", url)
    forget_process_state()
    yield
    forget_process_state()


def key(*scopes: str, tenant: str = "acme") -> Created:
    return keys.create(tenant=tenant, name="till 4", scopes=scopes or SCOPES, actor="me", door="cli")


def ask(door: Door, made: Created | None, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if made is not None:
        given["Authorization"] = f"Bearer {made.secret}"
    return door.call(method, path, body, headers=given)


def routes(door: Door) -> dict[str, tuple[str, str]]:
    """By name, with a path that leads to nothing."""
    found = {}
    for path, methods in door.call("GET", "/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            plain = path.replace("{effect_id}", _NOBODY).replace("{operation_id}", _NOBODY)
            found[operation["operationId"]] = method.upper(), plain.replace("{group_id}", "0" * 12)
    return found


def test_every_route_is_a_line_and_the_document_says_what_it_asks_for(door: Door) -> None:
    assert set(routes(door)) == set(EXPECTED)
    for methods in door.call("GET", "/openapi.json").json["paths"].values():
        for operation in methods.values():
            asked = EXPECTED[operation["operationId"]]
            assert ("security" in operation) == (asked != NO_KEY), operation["operationId"]


@pytest.mark.parametrize("scope", [*SCOPES, None])
def test_each_scope_opens_its_own_routes_and_no_other(door: Door, scope: str | None) -> None:
    made = key(scope) if scope else None
    wrong = []
    for name, (method, path) in routes(door).items():
        answer = ask(door, made, method, path, {} if method == "POST" else None)
        open_ = EXPECTED[name] == NO_KEY or (made is not None and EXPECTED[name] in {ANY_KEY, scope})
        if open_:
            fine = answer.status not in {401, 403}
        elif made is None:
            fine = answer.status == 401 and answer.json["code"] == "unauthenticated"
        else:
            asked = f'error="insufficient_scope", scope="{EXPECTED[name]}"'
            fine = answer.status == 403 and asked in answer.headers["www-authenticate"]
        if not fine:
            wrong.append((name, answer.status))
    assert wrong == []


@pytest.mark.parametrize("scope", SCOPES)
def test_an_item_of_a_batch_asks_for_the_scope_of_its_kind(door: Door, url: str, scope: str) -> None:
    assert dict(SCOPE_OF_KIND) == OF_ITEM
    made = key(scope, tenant=scope.replace(":", "-"))
    items = [{"kind": kind, "idempotency_key": f"{kind}:1", "request": wish} for kind, wish in _WISH.items()]
    answer = ask(door, made, "POST", "/v1/batch", {"items": items})
    refused = {items[r["index"]]["kind"] for r in answer.json["results"] if r["status"] == 403}
    assert refused == {kind for kind, asked in OF_ITEM.items() if asked != scope}
    # All or nothing: one item that may not be is enough.
    whole = ask(door, made, "POST", "/v1/batch", {"items": items, "atomic": True})
    assert whole.status in {403, 409, 422}
    with psycopg.connect(url) as db:
        kinds = db.execute("select kind from effects where tenant = %s", (made.key.tenant,)).fetchall()
    assert {kind for (kind,) in kinds} <= {kind for kind, asked in OF_ITEM.items() if asked == scope}


def trail(url: str, actor: str) -> Counter[tuple[str, str]]:
    """Every row that says this actor did something."""
    with psycopg.connect(url) as db:
        rows = db.execute(
            "select 'journal', fact from journal where actor = %(a)s union all"
            " select 'actions', verb from actions where actor = %(a)s union all"
            " select 'planned', verb from operations where planned_by = %(a)s",
            {"a": actor},
        ).fetchall()
    return Counter((str(table), str(what)) for table, what in rows)


def test_each_write_leaves_one_row_with_the_keys_name(door: Door, url: str) -> None:
    made = key(tenant="trail")
    actor = f"key:{made.key.id}"
    before = trail(url, actor)

    def wrote(expected: tuple[str, str] | None, method: str, path: str, body: Any, **headers: str) -> Any:
        nonlocal before
        answer = ask(door, made, method, path, body, **headers)
        after = trail(url, actor)
        assert after - before == (Counter([expected]) if expected else Counter()), (path, answer.raw)
        before = after
        return answer.json

    one = wrote(("journal", "accepted"), "POST", "/v1/charges", CHARGE, Idempotency_Key="o:1")["id"]
    wrote(("journal", "accepted"), "POST", "/v1/emails", EMAIL, Idempotency_Key="o:1")
    upon = {"charge": one, "amount": 1, "currency": "eur"}
    wrote(("journal", "accepted"), "POST", "/v1/refunds", upon, Idempotency_Key="o:1")
    wrote(("journal", "accepted"), "POST", "/v1/captures", upon, Idempotency_Key="o:1")
    wrote(("journal", "accepted"), "POST", "/v1/cancels", {"charge": one}, Idempotency_Key="o:1")
    item = {"kind": "charge", "idempotency_key": "o:2", "request": CHARGE}
    two = wrote(("journal", "accepted"), "POST", "/v1/batch", {"items": [item]})["results"][0]["id"]
    # Neither a repeat nor a refusal is a write.
    wrote(None, "POST", "/v1/charges", CHARGE, Idempotency_Key="o:1")
    wrote(None, "POST", "/v1/charges", {**CHARGE, "amount": 1}, Idempotency_Key="o:1")
    wrote(None, "POST", "/v1/charges", {}, Idempotency_Key="o:3")
    park(url, two)
    [group] = ask(door, made, "GET", "/v1/groups").json["groups"]
    wrote(("actions", "note"), "POST", f"/v1/groups/{group['id']}/notes", {"note": "INC-1"})
    plan = wrote(("planned", "replay"), "POST", "/v1/operations", {"verb": "replay", "select": {"ids": [two]}})["id"]
    why = {"reason": "INC-1"}
    for verb, written in (("start", "start"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        wrote(("actions", written), "POST", f"/v1/operations/{plan}/{verb}", why)
        if verb != "resume":  # a running one that runs is refused as well, below
            wrote(None, "POST", f"/v1/operations/{plan}/{verb}", why)
    wrote(None, "POST", f"/v1/operations/{plan}/resume", why)


def test_no_table_and_no_log_line_holds_a_keys_secret(door: Door, url: str) -> None:
    made = key(tenant="secret")
    word = made.secret.rpartition("_")[2]
    ask(door, made, "POST", "/v1/charges", CHARGE, Idempotency_Key="o:1")
    ask(door, made, "POST", "/v1/charges", {**CHARGE, "nonsense": 1}, Idempotency_Key="o:1")
    heir = keys.rotate(made.key.id, grace_seconds=60, actor="me", door="cli")
    keys.revoke(made.key.id, actor="me", door="cli", reason="leaked")
    ask(door, made, "GET", "/v1/effects")
    words = [word, heir.secret.rpartition("_")[2]]
    with psycopg.connect(url) as db:
        tables = db.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        ).fetchall()
        assert len(tables) > 10
        for (table,) in tables:
            for one in words:
                found = db.execute(f"select count(*) from {table} t where strpos(t::text, %s) > 0", (one,)).fetchone()
                assert found == (0,), table
        verbs = db.execute(
            "select verb, count(*) from actions where subject = any(%s) group by 1", ([made.key.id, heir.key.id],)
        ).fetchall()
    assert dict(verbs) == {"keys create": 1, "keys rotate": 1, "keys revoke": 1}
    assert not [line for line in door.lines for one in words if one in line]
    assert door.lines
