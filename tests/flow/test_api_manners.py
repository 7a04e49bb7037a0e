"""HTTP as its standards have it: Accept, HEAD, OPTIONS, Prefer, options of a request, and every problem with its page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import count

import pytest

from service.api.problem_types import TYPES
from tests.flow.doors import CHARGE, Door, served
from tests.server import Server

_keys = count(1)


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def key() -> str:
    return f"manners:{next(_keys)}"


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", "application/*;q=0.5", "text/html, application/json", ""]
)
def test_json_is_given_to_those_who_take_it(door: Door, accept: str) -> None:
    assert door.call("GET", "/v1/effects", headers={"Accept": accept}).status == 200


@pytest.mark.parametrize("accept", ["text/html", "application/xml, text/*", "application/json;q=0"])
def test_whoever_takes_no_json_is_told_so_before_anything_is_done(door: Door, key: str, accept: str) -> None:
    answer = door.charge(key, Accept=accept)
    assert (answer.status, answer.json["code"]) == (406, "not_acceptable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert door.call("GET", f"/v1/effects?key={key}").json["effects"] == []


def test_head_is_get_without_a_body(door: Door) -> None:
    for path in ("/v1/effects", "/livez", "/openapi.json"):
        get, head = door.call("GET", path), door.call("HEAD", path)
        assert (head.status, head.raw, head.headers["content-length"]) == (200, b"", get.headers["content-length"])


def test_options_and_405_name_all_methods_of_a_path(door: Door) -> None:
    for path, allowed in {
        "/v1/charges": "POST, OPTIONS",
        "/v1/effects": "GET, HEAD, OPTIONS",
        "/v1/operations": "GET, HEAD, POST, OPTIONS",
    }.items():
        options, wrong = door.call("OPTIONS", path), door.call("PATCH", path)
        assert (options.status, options.headers["allow"]) == (204, allowed)
        assert (wrong.status, wrong.headers["allow"], wrong.json["code"]) == (405, allowed, "method_not_allowed")
    assert door.call("OPTIONS", "/nowhere").status == 404
    assert door.call("GET", "/v1/effects/").status == 404


def test_respond_async_is_answered_at_once(door: Door, key: str) -> None:
    answer = door.charge(key, Prefer="respond-async")
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
    both = door.charge(key, Prefer="respond-async, wait=0")
    assert (both.status, both.headers["preference-applied"]) == (202, "respond-async, wait=0")


def test_options_say_when_and_where_and_are_no_part_of_the_name(door: Door, key: str) -> None:
    later = {**CHARGE, "options": {"eta": "2199-01-01T00:00:00+01:00", "priority": 9, "queue": "email"}}
    first = door.charge(key, later)
    assert first.status == 202
    assert door.effect(first.json["id"])["not_before"].startswith("2198-12-31T23:00:00")
    again = door.charge(key, CHARGE)
    assert (again.json["id"], again.json["created"]) == (first.json["id"], False)
    assert door.charge(f"{key}:soon", {**CHARGE, "options": {"countdown": 0.5}}).status == 202


@pytest.mark.parametrize(
    "options",
    [
        {"eta": "2199-01-01"},
        {"eta": "2199-01-01T00:00:00"},
        {"eta": "2199-02-30T00:00:00Z"},
        {"eta": 4102444800},
        {"countdown": -1},
        {"countdown": "5"},
        {"countdown": 1, "eta": "2199-01-01T00:00:00Z"},
        {"priority": 10},
        {"priority": True},
        {"queue": "nowhere"},
        {"tenant": "other"},
        [],
        "later",
    ],
)
def test_wrong_options_are_refused(door: Door, key: str, options: object) -> None:
    answer = door.charge(key, {**CHARGE, "options": options})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert door.call("GET", f"/v1/effects?key={key}").json["effects"] == []


def test_all_that_is_wrong_is_told_at_once(door: Door, key: str) -> None:
    answer = door.charge(key, {**CHARGE, "payment_method": "visa", "surprise": 1, "off_session": "yes"})
    fields = {error["field"] for error in answer.json["errors"]}
    assert {"payment_method", "surprise", "off_session"} <= fields
    assert answer.json["field"] in fields


def test_a_compressed_body_is_refused(door: Door, key: str) -> None:
    answer = door.charge(key, CHARGE, Content_Encoding="gzip")
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_body_that_ends_early_is_nobodys_bug(door: Door) -> None:
    with socket.create_connection((door.host, door.port), timeout=20) as caller:
        caller.sendall(
            b"POST /v1/charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: cut\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        caller.shutdown(socket.SHUT_RDWR)
    assert door.call("GET", "/v1/effects?key=cut").json["effects"] == []
    assert '"request_bug"' not in "".join(door.lines)


@pytest.mark.parametrize("code", list(TYPES))
def test_each_problem_type_is_described_at_its_address(door: Door, code: str) -> None:
    answer = door.call("GET", f"/problems/{code}")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert TYPES[code].title in answer.raw.decode()
    assert "under a new key?" in answer.raw.decode()
