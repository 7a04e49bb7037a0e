"""What is another tenant's is what is not there: same answer, same statements, on every route and for every way to name it.

The routes come from the OpenAPI document, so that a new one fails until it has said how it is asked. Once as the
owner, where each query stands for itself, and once with the API's own login, which row-level security binds to its tenant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from itertools import count
from typing import Any

import psycopg
import pytest

from service.core.state import State
from service.store import attempts
from service.store.attempts import Limits, Settlement
from service.store.database import make_engine
from tests.flow.doors import CHARGE, EMAIL, Answer, Door, served
from tests.flow.logins import key_of, made
from tests.flow.overheard import Overheard
from tests.server import Server

TARGETS = 100
# Who calls is found out before what is asked for is looked at, once a second or so; the bell is rung behind the commit,
# by a thread of its own that rings once for many.
_OF_NO_REQUEST = ("api_keys", "pg_notify", "pg_backend_pid()")
_tenants = count(1)
_MONEY = {"amount": 1, "currency": "eur"}
_OTHER = {**CHARGE, "amount": 1}
_REASON = {"reason": "mine now"}


@dataclass(frozen=True)
class Target:
    """How something is named: what another tenant has, or nobody."""

    effect: str
    key: str
    operation: str
    group: str
    ref: str
    cursor: str

    def absent(self) -> Target:
        """Names of the same form and place in every order, which nobody has."""
        return Target(*(value[:-1] + ("0" if value[-1] != "0" else "1") for value in astuple(self)))


Question = tuple[str, Any, dict[str, str]]
Probe = Callable[[Target], Question]


def _item(kind: str, key: str, request: Any) -> dict[str, Any]:
    return {"kind": kind, "idempotency_key": key, "request": request}


def _accepting(request: Any) -> list[Probe]:
    """A key that another has used, with the same request and with another one."""
    return [
        lambda t: ("", request, {"Idempotency-Key": t.key}),
        lambda t: ("", {**request, "metadata": {"a": "b"}} if "amount" in request else {**request, "subject": "Other"},
                   {"Idempotency-Key": t.key}),
    ]  # fmt: skip


def _upon(**more: Any) -> list[Probe]:
    """Another's charge, under a new key and under its key."""
    return [
        lambda t: ("", {"charge": t.effect, **more}, {"Idempotency-Key": f"new:{t.key}"}),
        lambda t: ("", {"charge": t.effect, **more}, {"Idempotency-Key": t.key}),
    ]


def _got(path: str, *, body: Any = None) -> list[Probe]:
    return [lambda t: (path.format(**asdict(t)), body, {})]


def _listing(*queries: str) -> list[Probe]:
    return [probe for query in queries for probe in _got(f"?{query}")]


def _planned(**select: str) -> list[Probe]:
    def asked(verb: str) -> Probe:
        def question(t: Target) -> Question:
            chosen = {name: [asdict(t)[of]] if name == "ids" else asdict(t)[of] for name, of in select.items()}
            return "", {"verb": verb, "select": chosen}, {}

        return question

    return [asked(verb) for verb in ("replay", "park", "unpark")]


# operationId: each way in which a request can name something. A path's own name is filled in.
PROBES: dict[str, list[Probe]] = {
    "create_charge": _accepting(CHARGE),
    "create_email": _accepting(EMAIL),
    "create_refund": _upon(**_MONEY),
    "create_capture": _upon(**_MONEY),
    "create_cancel": _upon(),
    "create_batch": [
        lambda t: ("", {"items": [_item("charge", t.key, CHARGE)]}, {}),
        lambda t: ("", {"items": [_item("charge", t.key, _OTHER)], "atomic": True}, {}),
        lambda t: ("", {"items": [_item("refund", f"r{t.key}", {"charge": t.effect, **_MONEY}),
                                  _item("charge", t.key, CHARGE)]}, {}),
        lambda t: ("", {"items": [_item("cancel", f"c{t.key}", {"charge": t.effect}),
                                  _item("charge", t.key, CHARGE)], "atomic": True}, {}),
    ],
    "get_effect": _got(""),
    "list_events": _got(""),
    "list_effects": _listing(
        "key={key}", "kind=charge&key={key}", "key_prefix={key}", "kind=charge&key_prefix={key}", "ref={ref}",
        "caused_by={effect}", "concerns={effect}", "kind=charge&limit=2&cursor={cursor}",
    ),
    "plan_operation": [*_planned(ids="effect"), *_planned(key_prefix="key"), *_planned(group="group"),
                       *_planned(ref="ref"), *_planned(operation="operation")],
    "list_operations": _listing("after={operation}"),
    "get_operation": _got(""),
    "list_items": _got(""),
    "start_operation": _got("", body=_REASON),
    "pause_operation": _got("", body=_REASON),
    "resume_operation": _got("", body=_REASON),
    "cancel_operation": _got("", body=_REASON),
    "note_group": _got("", body={"note": "who else?"}),
}  # fmt: skip
# They name nothing: a tenant that has nothing is told the same, whatever others have.
NOTHING_NAMED = {"outbox_stats", "list_groups", "list_effects", "list_operations"}
NO_TENANT = {"livez", "readyz", "stripe_webhook"}
_PATH = {"effect_id": "effect", "operation_id": "operation", "group_id": "group"}


@dataclass
class Ground:
    """Two tenants at one door: `a` asks, `b` has things."""

    door: Door
    wire: Overheard
    owner: str
    keys: dict[str, str]
    targets: Iterator[Target]
    routes: dict[str, tuple[str, str]]
    empty: dict[str, Any]

    def ask(
        self, tenant: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        given = {"Authorization": f"Bearer {self.keys[tenant]}", **(headers or {})}
        return self.door.call(method, path, body, headers=given)

    def put(self, operation: str, probe: Probe, target: Target) -> tuple[Any, list[str]]:
        """What tenant `a` is told, and which statements it took."""
        method, path = self.routes[operation]
        for name, of in _PATH.items():
            path = path.replace(f"{{{name}}}", asdict(target)[of])
        more, body, headers = probe(target)
        answers: list[Answer] = []
        heard = self.wire.of(lambda: answers.append(self.ask("a", method, path + more, body, headers)))
        return told(answers[0], target), [one for one in heard if not any(word in one for word in _OF_NO_REQUEST)]

    def books_of(self, tenant: str) -> list[tuple[Any, ...]]:
        """All rows of a tenant."""
        with psycopg.connect(self.owner) as db:
            return [
                row
                for query in (
                    "select e::text from effects e where tenant = %s order by id",
                    "select o::text from outbox o join effects e on e.id = o.effect_id where tenant = %s order by id",
                    "select j::text from journal j join effects e on e.id = j.effect_id where tenant = %s order by j.id",
                    "select p::text from operations p where tenant = %s order by id",
                    "select n::text from group_notes n where tenant = %s order by 1",
                )
                for row in db.execute(query, (tenant,))
            ]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*(Z|\+00:00)")
_MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def told(answer: Answer, target: Target) -> tuple[int, str, dict[str, str]]:
    """All of an answer but how the target is called, what was made just now, and when."""

    def blank(text: str) -> str:
        for name, value in asdict(target).items():
            text = text.replace(value, f"<{name}>")
        return _TIME.sub("<time>", _MADE.sub("<new>", text))

    headers = {k: blank(v) for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
    body = json.loads(answer.raw)
    body.pop("request_id", None)
    for result in body.get("results", ()):
        result.get("problem", {}).pop("request_id", None)
    return answer.status, blank(json.dumps(body)), headers


@pytest.fixture(scope="module", params=["owner", pytest.param("api", marks=pytest.mark.slow)])
def ground(request: pytest.FixtureRequest, postgres: Server, template: str) -> Iterator[Ground]:
    with postgres.database(template=template) as name:
        owner = postgres.url_of(name)
        if request.param == "owner":
            yield from _ground(owner, owner)
        else:
            for logins in made(postgres, owner):
                yield from _ground(owner, logins.urls["api"])


def _ground(owner: str, login: str) -> Iterator[Ground]:
    wire = Overheard(login)
    keys = {tenant: key_of(owner, tenant) for tenant in ("a", "b")}
    with served(wire.url, api_auth="keys") as door:
        document = door.call("GET", "/openapi.json").json
        routes = {o["operationId"]: (m.upper(), p) for p, ms in document["paths"].items() for m, o in ms.items()}
        made = Ground(door, wire, owner, keys, iter(()), routes, {})
        made.empty = {one: _seen(made, one) for one in NOTHING_NAMED}
        made.targets = iter(_targets(made))
        yield made
    wire.cut()


def _seen(ground: Ground, operation: str) -> Any:
    answer = ground.ask("a", *ground.routes[operation])
    assert answer.status == 200
    return answer.json


def _targets(ground: Ground) -> list[Target]:
    """Tenant `b`: parked charges with a refund, a letter's worth of groups, a paid one, a plan, a cursor."""
    items = [_item("charge", f"order:{n:04d}:x", CHARGE) for n in range(TARGETS)]
    ids = [row["id"] for row in ground.ask("b", "POST", "/v1/batch", {"items": items}).json["results"]]
    refunds = [_item("refund", f"refund:{one}", {"charge": one, **_MONEY}) for one in ids]
    assert ground.ask("b", "POST", "/v1/batch", {"items": refunds}).json["created"] == TARGETS
    _end(ground.owner, ids[:2], State.SUCCEEDED)
    _end(ground.owner, ids[2:], State.PARKED)
    [group] = [g["id"] for g in ground.ask("b", "GET", "/v1/groups").json["groups"] if g["kind"] == "charge"]
    assert ground.ask("b", "POST", f"/v1/groups/{group}/notes", {"note": "ours"}).status == 200
    plan = ground.ask("b", "POST", "/v1/operations", {"verb": "replay", "select": {"group": group}}).json
    assert plan["eligible"] == TARGETS - 2
    page = ground.ask("b", "GET", "/v1/effects?kind=charge&limit=2").json
    first = Target(
        "", "", plan["id"], group, f"pi_{ids[0][-12:]}", page["next"].partition("cursor=")[2].partition("&")[0]
    )
    return [replace(first, effect=one, key=f"order:{n:04d}:x") for n, one in enumerate(ids)]


def _end(owner: str, ids: list[str], state: State) -> None:
    engine = make_engine(owner, pooled=False)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        claimed = attempts.claim(connection, ids, Limits(90, 60, 86400), actor="test")
        done = [_settlement(attempt.id, attempt.number, state) for attempt in claimed]
        assert len(attempts.settle(connection, done, actor="test")) == len(ids)
    engine.dispose()


def _settlement(effect_id: str, attempt: int, state: State) -> Settlement:
    ref = f"pi_{effect_id[-12:]}"
    paid = {"outcome": {"ref": ref}, "provider": "stripe", "provider_ref": ref}
    more: Any = paid if state is State.SUCCEEDED else {"parked_reason": "contradiction"}
    return Settlement(effect_id, attempt, state, state.value, in_doubt=False, **more)


def test_every_route_says_how_another_tenants_things_can_be_named(ground: Ground) -> None:
    assert set(ground.routes) == set(PROBES) | NOTHING_NAMED | NO_TENANT
    for operation, (_, path) in ground.routes.items():
        assert "{" not in path or operation in PROBES, operation


@pytest.mark.parametrize("operation", PROBES)
def test_what_is_anothers_is_answered_as_what_is_not_there_with_the_same_statements(
    ground: Ground, operation: str
) -> None:
    before = ground.books_of("b")
    for number, probe in enumerate(PROBES[operation]):
        # Twice: the first time may look at something once for the process.
        for last in (False, True):
            target = next(ground.targets)
            answers = [ground.put(operation, probe, one) for one in (target, target.absent())]
            assert answers[0][0] == answers[1][0], (operation, number)
            if last:
                assert answers[0][1] == answers[1][1], (operation, number)
                assert answers[0][1] or answers[0][0][0] in (400, 404), (operation, number)
    assert ground.books_of("b") == before


@pytest.mark.parametrize("operation", sorted(NOTHING_NAMED))
def test_who_has_nothing_is_told_the_same_whatever_others_have(ground: Ground, operation: str) -> None:
    fresh = f"c{next(_tenants)}"
    ground.keys[fresh] = key_of(ground.owner, fresh)
    answer = ground.ask(fresh, *ground.routes[operation])
    assert (answer.status, answer.json) == (200, ground.empty[operation])


def test_the_owner_of_things_is_told_of_them(ground: Ground) -> None:
    """So that the answers above are no accident of a door that tells nobody anything."""
    target = next(ground.targets)
    assert ground.ask("b", "GET", f"/v1/effects/{target.effect}").json["dedupe_key"] == target.key
    assert ground.ask("b", "POST", "/v1/charges", CHARGE, {"Idempotency-Key": target.key}).json["id"] == target.effect
    assert ground.ask("b", "GET", f"/v1/effects?ref={target.ref}").json["effects"] != []
    assert ground.ask("b", "GET", f"/v1/effects?kind=charge&limit=2&cursor={target.cursor}").json["effects"] != []
    assert ground.ask("b", "GET", f"/v1/operations/{target.operation}").json["total"] == TARGETS - 2
