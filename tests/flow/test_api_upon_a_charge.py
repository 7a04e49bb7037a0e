"""The HTTP door for what acts upon a charge: the same headers and problems, and a 422 that names what does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from tests.flow.doors import EMAIL, Answer, Door, served
from tests.server import Server

_keys = count(1)
NOBODY = "01890000-0000-7000-8000-000000000000"
PATHS = {"refund": "/v1/refunds", "capture": "/v1/captures", "cancel": "/v1/cancels"}


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def key() -> str:
    return f"order:{next(_keys)}"


@pytest.fixture
def charge(door: Door, key: str) -> str:
    return str(door.charge(f"{key}:charge").json["id"])


def body(kind: str, charge: str, **changes: Any) -> dict[str, Any]:
    money = {} if kind == "cancel" else {"amount": 1200, "currency": "eur"}
    return {"charge": charge, **money, **changes}


def ask(door: Door, kind: str, key: str, charge: str, headers: dict[str, str] | None = None, **changes: Any) -> Answer:
    sent = {"Idempotency-Key": key, **(headers or {})}
    return door.call("POST", PATHS[kind], body(kind, charge, **changes), headers=sent)


@pytest.mark.parametrize("kind", list(PATHS))
def test_it_is_accepted_under_its_key_and_shows_what_it_acts_upon(door: Door, key: str, charge: str, kind: str) -> None:
    first, again = ask(door, kind, key, charge), ask(door, kind, f'"{key}"', charge.upper())
    assert (first.status, first.json["kind"], first.json["state"], first.json["created"]) == (
        202,
        kind,
        "pending",
        True,
    )
    assert first.headers["location"] == f"/v1/effects/{first.json['id']}"
    assert (again.json["id"], again.json["created"]) == (first.json["id"], False)
    assert again.headers["idempotent-replayed"] == "true"
    shown = door.effect(first.json["id"])
    assert (shown["concerns"], shown["amount"]) == (charge, None if kind == "cancel" else 1200)
    assert "concerns" not in door.effect(charge) or door.effect(charge)["concerns"] is None


@pytest.mark.parametrize("kind", list(PATHS))
def test_a_charge_that_does_not_exist_is_422_and_names_the_field(door: Door, key: str, kind: str) -> None:
    letter = door.call("POST", "/v1/emails", EMAIL, headers={"Idempotency-Key": key}).json["id"]
    for nobody in (NOBODY, letter):
        answer = ask(door, kind, key, nobody)
        found = answer.json
        assert (answer.status, found["code"], found["field"]) == (422, "charge_unfit", "charge")
        assert answer.headers["content-type"] == "application/problem+json"
        assert (found["retryable"], found["safe_new_key"]) == (False, True)
        assert nobody in found["detail"]
        assert door.call("GET", found["type"]).status == 200


@pytest.mark.parametrize("kind", ["refund", "capture"])
def test_more_than_the_charge_or_another_currency_is_422(door: Door, key: str, charge: str, kind: str) -> None:
    for field, value in (("amount", 4201), ("currency", "usd")):
        answer = ask(door, kind, key, charge, **{field: value})
        assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "charge_unfit", field)


@pytest.mark.parametrize("kind", list(PATHS))
@pytest.mark.parametrize("change", [{"charge": "ch_1"}, {"charge": None}, {"reason": "because"}, {"surprise": 1}])
def test_what_is_wrong_by_itself_is_400(door: Door, key: str, charge: str, kind: str, change: dict[str, Any]) -> None:
    answer = door.call("POST", PATHS[kind], {**body(kind, charge), **change}, headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert next(iter(change)) in answer.json["detail"]


def test_another_request_under_the_key_is_a_conflict(door: Door, key: str, charge: str) -> None:
    first = ask(door, "refund", key, charge)
    answer = ask(door, "refund", key, charge, amount=1300)
    assert (answer.status, answer.json["code"], answer.json["effect_id"]) == (422, "dedupe_conflict", first.json["id"])


def test_waiting_works_as_for_a_charge(door: Door, key: str, charge: str) -> None:
    waiting = ask(door, "refund", key, charge, headers={"Prefer": "wait=0"})
    assert (waiting.status, waiting.json["state"]) == (202, "pending")
    door.settle(charge)
    door.settle(waiting.json["id"])
    done = ask(door, "refund", key, charge, headers={"Prefer": "wait=5"})
    assert (done.status, done.json["effect"]["state"]) == (200, "succeeded")


def test_openapi_describes_them(door: Door) -> None:
    document = door.call("GET", "/openapi.json").json
    for kind, path in PATHS.items():
        post = document["paths"][path]["post"]
        assert post["operationId"] == f"create_{kind}"
        assert post["summary"]
        content = post["requestBody"]["content"]["application/json"]
        assert "charge" in content["schema"]["required"]
        assert content["schema"]["properties"].keys() >= content["examples"]["later"]["value"].keys()
        assert {"Idempotency-Key", "Prefer"} <= {parameter["name"] for parameter in post["parameters"]}
        assert {"202", "400", "422", "503"} <= post["responses"].keys()
    assert "concerns" in document["components"]["schemas"]["Effect"]["properties"]
