"""Operations by HTTP are the engine's own: a plan, a start with a reason, progress; and one tenant sees nothing of another's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.flow.doors import Answer, Door, park, served
from tests.server import Server

_keys = count(1)
NOBODY = "0198c0de-0000-7000-8000-00000000dead"


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def parked(door: Door) -> str:
    effect_id = str(door.charge(f"ops:{next(_keys)}").json["id"])
    park(door.database_url, effect_id)
    return effect_id


def post(door: Door, path: str, body: Any = None) -> Answer:
    return door.call("POST", f"/v1/operations{path}", body)


def planned(door: Door, **select: Any) -> dict[str, Any]:
    answer = post(door, "", {"verb": "replay", "select": select})
    assert answer.status == 201, answer.json
    assert answer.headers["location"] == f"/v1/operations/{answer.json['id']}"
    return dict(answer.json)


def test_a_plan_freezes_the_set_and_touches_nothing(door: Door, parked: str) -> None:
    plan = planned(door, ids=[parked, NOBODY])
    assert (plan["eligible"], plan["ids"], plan["money"]) == (1, [parked], {"eur": 4200})
    assert plan["skipped"] == {"no such effect": [NOBODY]}
    assert plan["sample"][0]["effect_id"] == parked
    assert door.effect(parked)["state"] == "parked"
    shown = door.call("GET", f"/v1/operations/{plan['id']}").json
    assert (shown["state"], shown["total"], shown["reason"]) == ("planned", 1, None)
    [item] = door.call("GET", f"/v1/operations/{plan['id']}/items").json["items"]
    assert (item["effect_id"], item["seen_state"], item["result"]) == (parked, "parked", "waiting")


def test_a_started_operation_can_be_paused_resumed_and_cancelled_from_anywhere(door: Door, parked: str) -> None:
    plan = planned(door, ids=[parked])
    path = f"/{plan['id']}"
    started = post(door, f"{path}/start", {"reason": "INC-1", "per_second": 5, "canary": 1})
    assert (started.status, started.json["state"], started.json["reason"]) == (200, "running", "INC-1")
    assert started.json["started_by"] == "loopback"
    twice = post(door, f"{path}/start", {"reason": "INC-1"})
    assert (twice.status, twice.json["code"]) == (409, "operation_state")
    assert post(door, f"{path}/pause").json["state"] == "paused"
    assert post(door, f"{path}/pause", {"reason": "again"}).json["code"] == "operation_state"
    assert post(door, f"{path}/resume", {}).json["state"] == "running"
    assert post(door, f"{path}/cancel", {"reason": "wrong set"}).json["state"] == "cancelled"
    assert plan["id"] in [o["id"] for o in door.call("GET", "/v1/operations?state=cancelled").json["operations"]]
    with psycopg.connect(door.database_url) as db:
        told = db.execute(
            "select verb, door, actor from actions where subject = %s order by id", [f"operation {plan['id']}"]
        )
        assert [row[0] for row in told.fetchall()] == ["start", "paused", "running", "cancelled"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"verb": "replay", "select": {}}, "select"),
        ({"verb": "replay", "select": {"limit": 5}}, "select"),
        ({"verb": "replay"}, "select"),
        ({"verb": "delete", "select": {"state": "parked"}}, "verb"),
        ({"verb": "replay", "select": {"state": "succeeded"}}, "select.state"),
        ({"verb": "replay", "select": {"ids": ["x"]}}, "select.ids.0"),
        ({"verb": "replay", "select": {"everything": True}}, "select.everything"),
        ({"verb": "replay", "select": {"since": "2026-12-01"}}, "select.since"),
    ],
)
def test_a_wrong_plan_is_refused(door: Door, body: dict[str, Any], field: str) -> None:
    answer = post(door, "", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", field)


def test_there_is_no_start_without_a_reason(door: Door, parked: str) -> None:
    plan = planned(door, ids=[parked])
    for body in ({}, {"reason": ""}, {"reason": "  "}, {"reason": "x", "per_second": 0}):
        assert post(door, f"/{plan['id']}/start", body).status == 400
    assert door.call("GET", f"/v1/operations/{plan['id']}").json["state"] == "planned"


@pytest.mark.parametrize("name", [NOBODY, "nonsense", "%00"])
def test_an_unknown_operation_is_a_problem(door: Door, name: str) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/items", None),
        ("POST", "/start", {"reason": "x"}),
        ("POST", "/pause", None),
    ):
        answer = door.call(method, f"/v1/operations/{name}{path}", body)
        assert (answer.status, answer.json["code"]) == (404, "operation_not_found")


def test_groups_tell_what_fails_in_the_same_way_and_carry_notes(door: Door, parked: str) -> None:
    groups = door.call("GET", "/v1/groups").json["groups"]
    [group] = [g for g in groups if parked in g["sample"] or g["count"] > 1]
    assert (group["kind"], group["state"], group["reason"]) == ("charge", "parked", "contradiction")
    path = f"/v1/groups/{group['id']}/notes"
    noted = door.call("POST", path, {"note": "INC-1: see the runbook"})
    assert [(n["note"], n["author"]) for n in noted.json["notes"]][-1] == ("INC-1: see the runbook", "loopback")
    assert door.call("POST", path, {"note": "  "}).status == 400
    assert door.call("POST", "/v1/groups/000000000000/notes", {"note": "x"}).json["code"] == "group_not_found"


def test_another_tenants_failures_and_operations_are_not_there(door: Door, parked: str) -> None:
    with psycopg.connect(door.database_url) as db:
        [(operation,)] = db.execute(
            "insert into operations (id, verb, selector, tenant, total, planned_by, expires_at)"
            " values (gen_random_uuid(), 'replay', '{}', 'other', 0, 'x', now() + interval '1 h') returning id"
        ).fetchall()
        before = door.call("GET", "/v1/outbox/stats").json
        assert before["parked"] >= 1
    assert door.call("GET", f"/v1/operations/{operation}").status == 404
    assert str(operation) not in door.call("GET", "/v1/operations").raw.decode()
    assert parked in planned(door, state="parked")["ids"]
