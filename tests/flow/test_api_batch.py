"""A batch is many effects in one request: each has its own key, the bad ones are named by index, `atomic` is all or none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.flow.doors import CHARGE, EMAIL, VISA, Answer, Door, served
from tests.server import Server

_keys = count(1)


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def key() -> str:
    return f"batch:{next(_keys)}"


def charge(key: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "charge", "idempotency_key": key, "request": {**CHARGE, **changes}}


def letter(key: str) -> dict[str, Any]:
    return {"kind": "email", "idempotency_key": key, "request": EMAIL}


def send(door: Door, *items: Any, **more: Any) -> Answer:
    return door.call("POST", "/v1/batch", {"items": list(items), **more})


def test_items_are_accepted_each_under_its_own_key(door: Door, key: str) -> None:
    answer = send(door, charge(f"{key}:a"), letter(f"{key}:a"), charge(f"{key}:b"))
    assert (answer.status, answer.json["created"], answer.json["refused"]) == (200, 3, 0)
    assert [r["kind"] for r in answer.json["results"]] == ["charge", "email", "charge"]
    assert [r["status"] for r in answer.json["results"]] == [202, 202, 202]
    for result, name in zip(answer.json["results"], (f"{key}:a", f"{key}:a", f"{key}:b"), strict=True):
        assert door.effect(result["id"])["dedupe_key"] == name


def test_a_batch_whose_answer_got_lost_is_sent_again_and_finds_its_effects(door: Door, key: str) -> None:
    items = [charge(f"{key}:{n}") for n in range(20)]
    first, again = send(door, *items), send(door, *items)
    assert (again.json["created"], again.json["replayed"]) == (0, 20)
    assert [r["id"] for r in again.json["results"]] == [r["id"] for r in first.json["results"]]


def test_bad_items_are_named_by_index_and_the_others_are_accepted(door: Door, key: str) -> None:
    first = door.charge(f"{key}:there")
    answer = send(
        door,
        charge(f"{key}:good"),
        charge(f"{key}:bad", amount="4200"),
        charge(f"{key}:there", amount=4300),
        charge(f"{key}:good"),
        {"kind": "refund", "idempotency_key": key, "request": {"charge": first.json["id"], "amount": 9999, "currency": "eur"}},
        {"kind": "theft", "idempotency_key": key, "request": {}},
        {"kind": "charge", "request": CHARGE},
        "nothing",
        charge("two words"),
        charge(f"{key}:queue") | {"options": {"queue": "nowhere"}},
    )  # fmt: skip
    assert (answer.status, answer.json["created"], answer.json["refused"]) == (200, 1, 9)
    problems = {r["index"]: r["problem"] for r in answer.json["results"] if "problem" in r}
    assert {index: problem["code"] for index, problem in problems.items()} == {
        1: "invalid_request",
        2: "dedupe_conflict",
        3: "idempotency_key_repeated",
        4: "charge_unfit",
        5: "invalid_request",
        6: "idempotency_key_missing",
        7: "invalid_request",
        8: "idempotency_key_invalid",
        9: "invalid_request",
    }
    assert problems[2]["effect_id"] == first.json["id"]
    assert "item 0" in problems[3]["detail"]
    assert (problems[1]["field"], problems[4]["field"]) == ("amount", "amount")


def test_an_atomic_batch_with_a_bad_item_writes_nothing(door: Door, key: str) -> None:
    answer = send(door, charge(f"{key}:a"), charge(f"{key}:b", currency="EUR"), charge(f"{key}:a"), atomic=True)
    assert (answer.status, answer.json["code"]) == (400, "batch_refused")
    assert [(e["index"], e["code"]) for e in answer.json["errors"]] == [
        (1, "invalid_request"),
        (2, "idempotency_key_repeated"),
    ]
    assert listed(door, key) == []


def test_i4_an_atomic_batch_with_a_conflict_writes_nothing_and_names_it(door: Door, key: str) -> None:
    first = door.charge(f"{key}:b")
    answer = send(door, charge(f"{key}:a"), charge(f"{key}:b", amount=1), letter(f"{key}:c"), atomic=True)
    assert (answer.status, answer.json["code"], answer.json["safe_new_key"]) == (422, "batch_conflict", False)
    [error] = answer.json["errors"]
    assert (error["index"], error["code"], error["effect_id"]) == (1, "dedupe_conflict", first.json["id"])
    assert listed(door, key) == [f"{key}:b"]


def test_an_atomic_batch_is_accepted_as_a_whole(door: Door, key: str) -> None:
    answer = send(door, *(letter(f"{key}:{n}") for n in range(3)), atomic=True)
    assert (answer.status, answer.json["created"]) == (200, 3)


def listed(door: Door, prefix: str) -> list[str]:
    found = door.call("GET", f"/v1/effects?key_prefix={prefix}:&kind=charge").json["effects"]
    return [effect["dedupe_key"] for effect in found]


def test_a_thousand_items_pass_and_one_more_does_not(door: Door, key: str) -> None:
    items = [letter(f"{key}:{n}") for n in range(1001)]
    assert send(door, *items[:1000], atomic=True).json["created"] == 1000
    answer = send(door, *items)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", "items")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": {}},
        {"items": [1], "atomic": "yes"},
        {"items": [1], "surprise": 1},
        {"atomic": True},
    ],
)
def test_what_is_no_batch_is_refused(door: Door, body: dict[str, Any]) -> None:
    answer = door.call("POST", "/v1/batch", body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


def test_a_card_number_anywhere_refuses_the_whole_batch_and_is_not_repeated(door: Door, key: str) -> None:
    answer = send(door, charge(f"{key}:a"), charge(f"{key}:b", description=f"card {VISA}"))
    assert answer.status == 400
    assert VISA not in answer.raw.decode()
    assert listed(door, key) == []


def test_options_travel_with_their_item(door: Door, key: str) -> None:
    item = charge(key) | {"options": {"eta": "2199-01-01T00:00:00Z", "priority": 9, "queue": "email"}}
    [result] = send(door, item).json["results"]
    assert door.effect(result["id"])["not_before"].startswith("2199-01-01T00:00:00")
