"""Keys at the door: who shows none, a wrong one or a poor one gets nothing; a revoked one dies within its second."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest

from service.engine import keys
from service.engine.keys import SCOPES, Created
from tests.flow.doors import CHARGE, EMAIL, Answer, Door, served, wait_until
from tests.server import Server

_names = count(1)
_NOBODY = "019a2f6e-0000-7000-8000-000000000017"


@pytest.fixture(scope="module")
def url(postgres: Server, template: str) -> Iterator[str]:
    with postgres.database(template=template) as name:
        yield postgres.url_of(name)


@pytest.fixture(scope="module")
def door(url: str) -> Iterator[Door]:
    with served(url, api_auth="keys") as running:
        yield running


@pytest.fixture
def own(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process works on the door's database."""
    from tests.conftest import forget_process_state

    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", url)
    forget_process_state()
    yield
    forget_process_state()


def key(tenant: str = "acme", *scopes: str, **more: Any) -> Created:
    return keys.create(tenant=tenant, name="test", scopes=scopes or SCOPES, actor="me", door="cli", **more)


def ask(door: Door, made: Created | str | None, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if made is not None:
        given["Authorization"] = f"Bearer {made if isinstance(made, str) else made.secret}"
    return door.call(method, path, body, headers=given)


def charge(door: Door, made: Created | str | None, name: str, body: Any = None) -> Answer:
    return ask(door, made, "POST", "/v1/charges", body or CHARGE, Idempotency_Key=name)


def code(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, str(answer.json["code"])


# --- no key, a wrong one, a poor one ------------------------------------------------------------------------------

ROUTES = [
    ("POST", "/v1/charges"), ("POST", "/v1/emails"), ("POST", "/v1/refunds"), ("POST", "/v1/captures"),
    ("POST", "/v1/cancels"), ("POST", "/v1/batch"), ("GET", "/v1/effects"), ("GET", f"/v1/effects/{_NOBODY}"),
    ("GET", f"/v1/effects/{_NOBODY}/events"), ("GET", "/v1/operations"), ("POST", "/v1/operations"),
    ("GET", f"/v1/operations/{_NOBODY}"), ("POST", f"/v1/operations/{_NOBODY}/start"), ("GET", "/v1/groups"),
    ("GET", "/v1/outbox/stats"),
]  # fmt: skip


def test_every_route_but_those_for_all_asks_for_a_key(door: Door) -> None:
    asked = 0
    for path, methods in door.call("GET", "/openapi.json").json["paths"].items():
        for method in methods:
            answer = door.call(method.upper(), path.replace("{", "").replace("}", ""), {} if method == "post" else None)
            if path.startswith("/v1/webhooks") or not path.startswith("/v1/"):
                assert answer.status not in (401, 403), path
                continue
            assert code(answer) == (401, "unauthenticated"), path
            assert answer.headers["www-authenticate"] == 'Bearer realm="counterfoil"'
            asked += 1
    assert asked >= len(ROUTES)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "shown", ["Basic YTpi", "Bearer", "Bearer ", "Bearer nonsense", "Bearer cfk_aaaaaaaa_x", "cfk_a_b"]
)
def test_what_is_no_key_is_refused(door: Door, shown: str) -> None:
    answer = door.call("GET", "/v1/effects", headers={"Authorization": shown})
    assert code(answer) == (401, "unauthenticated")
    assert "www-authenticate" in answer.headers


@pytest.mark.usefixtures("own")
def test_two_authorizations_are_refused(door: Door) -> None:
    made = key()
    both = [("Authorization", f"Bearer {made.secret}"), ("Authorization", f"Bearer {made.secret}")]
    assert code(door.call("GET", "/v1/effects", headers=both)) == (401, "unauthenticated")


@pytest.mark.usefixtures("own")
def test_a_right_id_with_a_wrong_secret_is_as_unknown_as_a_wrong_id(door: Door) -> None:
    made = key()
    guessed = made.key.id + "_" + "A" * 43
    stranger = "cfk_aaaaaaaa_" + "A" * 43
    answers = [ask(door, token, "GET", "/v1/effects") for token in (guessed, stranger)]
    for answer in answers:
        answer.json.pop("request_id", None)
    left, right = ({k: v for k, v in a.json.items() if k != "request_id"} for a in answers)
    assert left == right
    assert left["code"] == "unauthenticated"


@pytest.mark.usefixtures("own")
def test_a_scope_that_is_missing_is_named_and_nothing_is_written(door: Door, url: str) -> None:
    poor = key("poorest", "effects:read")
    answer = charge(door, poor, "poor:1")
    assert code(answer) == (403, "forbidden")
    assert "charges:write" in answer.json["detail"]
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    with psycopg.connect(url) as db:
        assert db.execute("select count(*) from effects where tenant = 'poorest'").fetchone() == (0,)


@pytest.mark.usefixtures("own")
def test_a_batch_wants_the_scope_of_each_kind_in_it(door: Door) -> None:
    items = [
        {"kind": "charge", "idempotency_key": "poor:2", "request": CHARGE},
        {"kind": "email", "idempotency_key": "poor:3", "request": EMAIL},
    ]
    writer = key("poor", "emails:write")
    whole = ask(door, writer, "POST", "/v1/batch", {"atomic": True, "items": items})
    assert code(whole) == (403, "forbidden")
    assert [(error["index"], error["code"]) for error in whole.json["errors"]] == [(0, "forbidden")]
    assert 'scope="charges:write"' in whole.headers["www-authenticate"]
    each = ask(door, writer, "POST", "/v1/batch", {"items": items})
    assert [item["status"] for item in each.json["results"]] == [403, 202]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("path", "body", "scope"),
    [("/v1/emails", EMAIL, "emails:write"), ("/v1/charges", CHARGE, "charges:write"),
     ("/v1/refunds", {"charge": _NOBODY}, "refunds:write"), ("/v1/cancels", {"charge": _NOBODY}, "refunds:write"),
     ("/v1/captures", {"charge": _NOBODY}, "refunds:write")],
)  # fmt: skip
def test_each_kind_wants_its_own_scope(door: Door, path: str, body: Any, scope: str) -> None:
    others = [name for name in SCOPES if name != scope]
    assert ask(door, key("t", *others), "POST", path, body, Idempotency_Key="k").status == 403
    assert ask(door, key("t", scope), "POST", path, body, Idempotency_Key="k").status in (202, 400, 422)


# --- the life of a key ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own")
def test_a_revoked_key_dies_within_the_second(door: Door) -> None:
    made = key()
    assert ask(door, made, "GET", "/v1/effects").status == 200
    keys.revoke(made.key.id, actor="me", door="cli")
    wait_until(lambda: ask(door, made, "GET", "/v1/effects").status == 401, seconds=keys.CACHE_SECONDS + 5)
    assert "revoked" in ask(door, made, "GET", "/v1/effects").json["detail"]


@pytest.mark.usefixtures("own")
def test_an_expired_key_says_so_to_its_owner_only(door: Door) -> None:
    made = key(expires_in=0.2)
    wait_until(lambda: ask(door, made, "GET", "/v1/effects").status == 401)
    assert "expired" in ask(door, made, "GET", "/v1/effects").json["detail"]
    guessed = made.key.id + "_" + "A" * 43
    assert "expired" not in ask(door, guessed, "GET", "/v1/effects").json["detail"]


@pytest.mark.usefixtures("own")
def test_both_keys_of_a_rotation_live_and_find_the_same_effects(door: Door) -> None:
    old = key("rotating")
    first = charge(door, old, "order:1")
    new = keys.rotate(old.key.id, grace_seconds=3600, actor="me", door="cli")
    again = charge(door, new, "order:1")
    assert (again.status, again.json["id"]) == (202, first.json["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert ask(door, old, "GET", f"/v1/effects/{first.json['id']}").status == 200


@pytest.mark.usefixtures("own")
def test_an_effect_names_the_key_that_asked_for_it_in_its_journal(door: Door, url: str) -> None:
    made = key()
    answer = charge(door, made, f"order:{next(_names)}")
    with psycopg.connect(url) as db:
        found = db.execute("select actor from journal where effect_id = %s", (answer.json["id"],)).fetchall()
        used = db.execute("select used_at is not null from api_keys where id = %s", (made.key.id,)).fetchone()
    assert found == [(f"key:{made.key.id}",)]
    assert used == (True,)


# --- rate ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own")
def test_a_key_has_one_rate_over_all_processes(door: Door, url: str) -> None:
    made = key(per_second=0.01, burst=6)
    with served(url, api_auth="keys") as second:
        answers = [ask(d, made, "GET", "/v1/effects") for d in (door, second) * 5]
    assert sorted(a.status for a in answers) == [200] * 6 + [429] * 4
    refused = next(a for a in answers if a.status == 429)
    assert code(refused) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"key";q=6;w=600'
    assert refused.headers["ratelimit"].startswith('"key";r=0;')
    assert answers[0].headers["ratelimit"].startswith('"key";r=5;')


@pytest.mark.usefixtures("own")
def test_a_crowd_takes_no_more_than_the_bucket_holds(door: Door) -> None:
    made = key(per_second=0.01, burst=10)
    found: list[int] = []
    crowd = [
        threading.Thread(target=lambda: found.append(ask(door, made, "GET", "/v1/effects").status)) for _ in range(30)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert found.count(200) == 10
    assert found.count(429) == 20


@pytest.mark.usefixtures("own")
def test_who_knows_the_id_alone_cannot_empty_the_bucket(door: Door) -> None:
    made = key(per_second=0.01, burst=2)
    for _ in range(5):
        assert ask(door, f"{made.key.id}_{'A' * 43}", "GET", "/v1/effects").status == 401
    assert ask(door, made, "GET", "/v1/effects").status == 200


# --- tenants -------------------------------------------------------------------------------------------------------


def told(answer: Answer) -> Any:
    """All that an answer tells, less what differs between any two."""
    text = answer.raw.decode()
    document = json.loads(text) if text else None
    if isinstance(document, dict):
        document.pop("request_id", None)
    own = ("x-request-id", "date", "content-length")
    return answer.status, document, {k: v for k, v in answer.headers.items() if k not in own}


@pytest.mark.usefixtures("own")
def test_a_tenant_cannot_read_collide_with_or_probe_anothers_keys(door: Door) -> None:
    ours, theirs = key("ours"), key("theirs")
    name = f"order:{next(_names)}"
    effect = charge(door, ours, name).json["id"]
    # Colliding: the same key is another effect, and the same request or another one makes no difference.
    other = charge(door, theirs, name, {**CHARGE, "amount": 1})
    assert (other.status, other.json["created"]) == (202, True)
    assert other.json["id"] != effect
    assert other.headers["location"].endswith(other.json["id"])
    # Reading and probing: what is another's is what is not there.
    for path in ("/v1/effects/{}", "/v1/effects/{}/events"):
        assert told(ask(door, theirs, "GET", path.format(effect))) == told(
            ask(door, theirs, "GET", path.format(_NOBODY))
        )
    listed = ask(door, theirs, "GET", f"/v1/effects?key={name}").json["effects"]
    assert [row["id"] for row in listed] == [other.json["id"]]
    assert ask(door, theirs, "GET", f"/v1/effects?concerns={effect}").json["effects"] == []
    for kind, path in (("refund", "refunds"), ("cancel", "cancels"), ("capture", "captures")):
        wish = {"amount": 1, "currency": "eur"} if kind != "cancel" else {}
        pair = [
            ask(door, theirs, "POST", f"/v1/{path}", {"charge": charge_id, **wish}, Idempotency_Key=f"{name}:{kind}")
            for charge_id in (effect, _NOBODY)
        ]
        answers = [json.dumps(told(answer)).replace(effect, "ID").replace(_NOBODY, "ID") for answer in pair]
        assert answers[0] == answers[1]
        assert pair[0].status == 422


@pytest.mark.usefixtures("own")
def test_batches_operations_and_groups_keep_tenants_apart(door: Door) -> None:
    ours, theirs = key("ours2"), key("theirs2")
    name = f"order:{next(_names)}"
    item = {"kind": "charge", "idempotency_key": name, "request": CHARGE}
    mine = ask(door, ours, "POST", "/v1/batch", {"items": [item]}).json["results"][0]
    yours = ask(door, theirs, "POST", "/v1/batch", {"items": [item]}).json["results"][0]
    assert (yours["created"], yours["id"] == mine["id"]) == (True, False)
    wish = {"verb": "park", "select": {"ids": [mine["id"]]}}
    plan = ask(door, theirs, "POST", "/v1/operations", wish).json
    blank = ask(door, theirs, "POST", "/v1/operations", {**wish, "select": {"ids": [_NOBODY]}}).json
    assert plan["eligible"] == blank["eligible"] == 0
    same = [json.dumps(p["skipped"]).replace(mine["id"], "ID").replace(_NOBODY, "ID") for p in (plan, blank)]
    assert same[0] == same[1]
    own_plan = ask(door, ours, "POST", "/v1/operations", wish).json
    assert own_plan["eligible"] == 1
    for method, path, body in (("GET", "", None), ("GET", "/items", None), ("POST", "/start", {"reason": "mine now"}),
                               ("POST", "/cancel", {"reason": "no"}), ("POST", "/pause", {"reason": "no"})):  # fmt: skip
        foreign = ask(door, theirs, method, f"/v1/operations/{own_plan['id']}{path}", body)
        absent = ask(door, theirs, method, f"/v1/operations/{_NOBODY}{path}", body)
        assert told(foreign)[0] == 404, (path, foreign.raw)
        assert json.dumps(told(foreign)).replace(own_plan["id"], "ID") == json.dumps(told(absent)).replace(
            _NOBODY, "ID"
        )
    assert ask(door, theirs, "GET", "/v1/operations").json["operations"] != []
    assert own_plan["id"] not in ask(door, theirs, "GET", "/v1/operations").raw.decode()
