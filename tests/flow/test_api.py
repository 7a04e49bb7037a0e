"""The HTTP door keeps its promises over real sockets: a key is an effect, a refusal says what to do and echoes nothing."""

from __future__ import annotations

import http.client
import json
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import psycopg
import pytest

from tests.flow.doors import CHARGE, EMAIL, VISA, Answer, Door, served, wait_until
from tests.server import Server

_keys = count(1)


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture
def key() -> str:
    return f"order:{next(_keys)}:charge"


def problem(answer: Answer, status: int, code: str) -> dict[str, object]:
    """The answer is a whole RFC 9457 problem of this kind and tells nothing of the request's values."""
    document = answer.json
    assert (answer.status, document["code"]) == (status, code), document
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["type"] == f"/problems/{code}"
    assert document["status"] == status
    assert {"title", "detail", "retryable", "safe_new_key", "request_id"} <= document.keys()
    assert VISA not in answer.raw.decode()
    assert "Traceback" not in answer.raw.decode()
    return dict(document)


def rows(door: Door, sql: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(door.database_url) as connection:
        return connection.execute(sql.encode(), values).fetchall()


# --- accepting ----------------------------------------------------------------------------------------------------


def test_a_charge_is_accepted_with_its_place(door: Door, key: str) -> None:
    answer = door.charge(f'"{key}"')
    assert answer.status == 202
    assert answer.json["kind"] == "charge"
    assert answer.json["state"] == "pending"
    assert answer.json["created"] is True
    assert answer.headers["location"] == f"/v1/effects/{answer.json['id']}"
    assert "idempotent-replayed" not in answer.headers
    shown = door.effect(answer.json["id"])
    assert (shown["dedupe_key"], shown["amount"], shown["currency"], shown["final"]) == (key, 4200, "eur", False)
    assert "request" not in shown


def test_an_email_is_accepted(door: Door, key: str) -> None:
    answer = door.call("POST", "/v1/emails", EMAIL, headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["kind"]) == (202, "email")


def test_a_quoted_key_and_a_bare_one_are_the_same_name(door: Door, key: str) -> None:
    first = door.charge(f'"{key}"')
    second = door.charge(key)
    assert second.status == 202
    assert second.json["id"] == first.json["id"]
    assert second.json["created"] is False
    assert second.headers["idempotent-replayed"] == "true"


def test_escapes_of_a_quoted_key_are_read(door: Door) -> None:
    answer = door.charge(r'"a\"b\\c"')
    assert door.effect(answer.json["id"])["dedupe_key"] == r"a\"b\c".replace('\\"', '"')


def test_the_order_of_fields_does_not_make_another_request(door: Door, key: str) -> None:
    first = door.charge(key)
    again = door.charge(key, dict(reversed(CHARGE.items())))
    assert (again.status, again.json["id"]) == (202, first.json["id"])


def test_i4_the_same_key_with_another_request_is_refused_and_changes_nothing(door: Door, key: str) -> None:
    first = door.charge(key)
    found = problem(door.charge(key, {**CHARGE, "amount": 4300}), 422, "dedupe_conflict")
    assert found["effect_id"] == first.json["id"]
    assert found["safe_new_key"] is False
    assert found["retryable"] is False
    assert found["effect_state"] == "pending"
    assert door.effect(first.json["id"])["amount"] == 4200


def test_the_same_key_names_a_charge_and_an_email_apart(door: Door, key: str) -> None:
    charge = door.charge(key)
    letter = door.call("POST", "/v1/emails", EMAIL, headers={"Idempotency-Key": key})
    assert letter.json["created"] is True
    assert letter.json["id"] != charge.json["id"]


def test_fifty_callers_with_one_key_make_one_effect(door: Door, key: str) -> None:
    with ThreadPoolExecutor(50) as crowd:
        answers = list(crowd.map(lambda _: door.charge(key), range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert [answer.json["created"] for answer in answers].count(True) == 1
    assert rows(door, "select count(*) from effects where dedupe_key = %s", key) == [(1,)]


# --- the key ------------------------------------------------------------------------------------------------------


def test_a_missing_key_is_refused(door: Door) -> None:
    found = problem(door.call("POST", "/v1/charges", CHARGE), 400, "idempotency_key_missing")
    assert found["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    "value",
    ['""', "", "two words", '"two words"', '"open', "a,b", 'a"b', "k" * 256, f'"{"k" * 256}"', "a;b=1", '"a"; b', VISA],
)
def test_a_malformed_key_is_refused(door: Door, value: str) -> None:
    found = problem(door.charge(value), 400, "idempotency_key_invalid")
    assert found["field"] == "Idempotency-Key"
    assert found["safe_new_key"] is True


def test_two_keys_are_refused(door: Door) -> None:
    twice = [("Idempotency-Key", "a-1"), ("Idempotency-Key", "a-2")]
    problem(door.call("POST", "/v1/charges", CHARGE, headers=twice), 400, "idempotency_key_invalid")


# --- waiting ------------------------------------------------------------------------------------------------------


def test_prefer_wait_answers_200_once_the_outcome_is_there(door: Door, key: str) -> None:
    effect_id = door.charge(key).json["id"]
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(door.charge, key, None, Prefer="respond-async, wait=20")
        door.settle(effect_id)
        answer = waiting.result(30)
    assert answer.status == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json["state"] == "succeeded"
    assert answer.json["effect"]["final"] is True
    assert answer.json["effect"]["outcome"] == {"ref": answer.json["effect"]["provider_ref"]}


def test_prefer_wait_answers_202_when_the_time_is_over(door: Door, key: str) -> None:
    answer = door.charge(key, Prefer="wait=0")
    assert (answer.status, answer.headers["preference-applied"]) == (202, "wait=0")
    assert answer.json["state"] == "pending"


def test_a_wish_that_is_not_understood_is_ignored(door: Door, key: str) -> None:
    answer = door.charge(key, Prefer="wait=soon; please, handling=strict")
    assert answer.status == 202
    assert "preference-applied" not in answer.headers


def test_many_who_wait_leave_the_door_open(door: Door, key: str) -> None:
    with ThreadPoolExecutor(60) as crowd:
        waiting = [crowd.submit(door.charge, f"{key}:{n}", None, Prefer="wait=2") for n in range(60)]
        assert door.call("GET", "/livez").status == 200
        assert door.charge(key).status == 202
        assert {w.result(30).status for w in waiting} == {202}


# --- the body -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "4200"}, "amount"),
        ({"amount": 42.0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": True}, "amount"),
        ({"currency": "EUR"}, "currency"),
        ({"currency": None}, "currency"),
        ({"payment_method": "visa"}, "payment_method"),
        ({"surprise": 1}, "surprise"),
        ({"receipt_email": "not an address"}, "receipt_email"),
        ({"metadata": {"effect_id": "mine"}}, "metadata"),
    ],
)
def test_a_bad_field_is_named(door: Door, key: str, change: dict[str, object], field: str) -> None:
    found = problem(door.charge(key, {**CHARGE, **change}), 400, "invalid_request")
    assert field in str(found["detail"])
    assert rows(door, "select count(*) from effects where dedupe_key = %s", key) == [(0,)]


@pytest.mark.parametrize(
    "change",
    [
        {"payment_method": VISA},
        {"description": "card 4242 4242 4242 4242 please"},
        {"amount": int(VISA)},
        {"metadata": {VISA: "x"}},
        {"metadata": {"note": "4242-4242-4242-4242"}},
        {VISA: 1},
        {"surprise": [{"deep": VISA}]},
        {"customer": int(VISA)},
    ],
)
def test_a_card_number_is_refused_and_never_repeated(door: Door, key: str, change: dict[str, object]) -> None:
    answer = door.charge(key, {**CHARGE, **change})
    found = problem(answer, 400, "invalid_request")
    assert "card number" in str(found["detail"])
    assert "4242" not in answer.raw.decode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"amount": NaN}',
        b'{"amount": 1, "amount": 2}',
        b'{"description": "\xff"}',
        b'{"description": "\\ud800"}',
        b'{"description": "a\\u0000b"}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}}',
        b'{"amount": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_is_not_one_json_object_is_refused(door: Door, key: str, raw: bytes) -> None:
    answer = door.call("POST", "/v1/charges", raw=raw, headers={"Idempotency-Key": key})
    problem(answer, 400, "invalid_json")


def test_a_body_beyond_the_limit_is_refused(door: Door, key: str) -> None:
    answer = door.charge(key, {**CHARGE, "description": "x" * (512 * 1024)})
    problem(answer, 413, "body_too_large")


def test_a_chunked_body_beyond_the_limit_is_refused(door: Door, key: str) -> None:
    connection = http.client.HTTPConnection(door.host, door.port, timeout=20)
    chunks = (b"x" * 65536 for _ in range(9))
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    connection.request("POST", "/v1/charges", chunks, headers, encode_chunked=True)
    response = connection.getresponse()
    problem(
        Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()),
        413,
        "body_too_large",
    )
    connection.close()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
def test_another_content_type_is_refused(door: Door, key: str, kind: str) -> None:
    headers = {"Idempotency-Key": key, "Content-Type": kind}
    problem(door.call("POST", "/v1/charges", CHARGE, headers=headers), 415, "unsupported_media_type")


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0198c0de-0000-7000-8000-00000000dead", "nonsense", "%00", VISA])
def test_an_unknown_effect_is_a_problem(door: Door, name: str) -> None:
    problem(door.call("GET", f"/v1/effects/{name}"), 404, "effect_not_found")


def test_pages_show_each_effect_once(door: Door, key: str) -> None:
    made = {door.charge(f"{key}:{n}").json["id"] for n in range(5)}
    seen: list[str] = []
    path: str | None = "/v1/effects?kind=charge&state=pending&limit=2"
    while path and not made <= set(seen):
        answer = door.call("GET", path)
        assert answer.status == 200
        seen += [effect["id"] for effect in answer.json["effects"]]
        path = answer.json.get("next")
        assert (path is None) == ("link" not in answer.headers)
        if path:
            assert answer.headers["link"] == f'<{path}>; rel="next"'
    assert made <= set(seen)
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "state=odd", "after=x", "kind=%00", f"limit={VISA}", f"state={VISA}"]
)
def test_a_bad_query_is_a_problem(door: Door, query: str) -> None:
    problem(door.call("GET", f"/v1/effects?{query}"), 400, "invalid_request")


def test_unknown_paths_and_methods_are_problems(door: Door) -> None:
    problem(door.call("GET", "/v2/nothing"), 404, "not_found")
    answer = door.call("DELETE", "/v1/charges")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"


def test_each_problem_type_can_be_looked_up(door: Door) -> None:
    answer = door.call("GET", problem(door.call("POST", "/v1/charges", CHARGE), 400, "idempotency_key_missing")["type"])  # type: ignore[arg-type]
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    problem(door.call("GET", "/problems/nonsense"), 404, "not_found")


def test_openapi_describes_the_doors(door: Door) -> None:
    document = door.call("GET", "/openapi.json").json
    body = document["paths"]["/v1/charges"]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["now"]["value"]["amount"] == 4200
    assert {"amount", "currency", "payment_method"} <= set(body["schema"]["required"])
    names = {parameter["name"] for parameter in document["paths"]["/v1/emails"]["post"]["parameters"]}
    assert {"Idempotency-Key", "Prefer"} <= names


# --- who asked ----------------------------------------------------------------------------------------------------


def test_the_request_id_and_the_trace_go_into_the_effect(door: Door, key: str) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    answer = door.charge(key, X_Request_Id="req-17", traceparent=parent)
    assert answer.headers["x-request-id"] == "req-17"
    [(context,)] = rows(door, "select context from effects where dedupe_key = %s", key)
    assert isinstance(context, dict)
    assert context["request_id"] == "req-17"
    assert context["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize("value", ["", "two words", "x" * 200, VISA, "a;b"])
def test_a_strange_request_id_is_replaced(door: Door, key: str, value: str) -> None:
    answer = door.charge(key, X_Request_Id=value)
    assert answer.headers["x-request-id"] not in ("", value)
    uuid.UUID(answer.headers["x-request-id"])


def test_requests_from_the_same_connection_do_not_share_an_id(door: Door) -> None:
    ids = {door.call("GET", "/livez").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_no_line_of_the_log_holds_what_was_sent(door: Door, key: str) -> None:
    secret = f"very-private-{key}"
    door.charge(
        secret, {**CHARGE, "description": secret, "receipt_email": "private@example.test"}, X_Request_Id="seen-1"
    )
    door.charge(key, {**CHARGE, "description": VISA})
    door.call("GET", f"/v1/effects/{VISA}", headers={"X-Request-Id": "seen-2"})
    wait_until(lambda: any("seen-2" in line for line in door.lines))
    log = "".join(door.lines)
    assert not [word for word in (secret, "private@example.test", VISA) if word in log]
    lines = [json.loads(line) for line in door.lines]
    assert "[withheld]" not in log
    assert any(line.get("request_id") == "seen-1" and line.get("status") == 202 for line in lines)


# --- health -------------------------------------------------------------------------------------------------------


def test_ready_follows_the_database_down_and_up_and_alive_does_not(door: Door, key: str) -> None:
    assert door.call("GET", "/readyz").status == 200
    door.wire.cut()
    try:
        assert door.call("GET", "/readyz").status == 503
        assert door.call("GET", "/livez").status == 200
        answer = door.charge(key)
        found = problem(answer, 503, "dependency_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert (found["retryable"], found["safe_new_key"]) == (True, False)
    finally:
        door.wire.mend()
    wait_until(lambda: door.call("GET", "/readyz").status == 200)
    assert door.charge(key).json["created"] is True


def test_an_empty_database_is_not_ready(postgres: Server) -> None:
    with postgres.database() as name, served(postgres.url_of(name)) as running:
        answer = running.call("GET", "/readyz")
        assert answer.status == 503
        assert "counterfoil db upgrade" in answer.json["status"]
        # A stop signal drains: whoever waits is answered, and the exit code says that all went well.
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
