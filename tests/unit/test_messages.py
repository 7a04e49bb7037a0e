"""A message is read strictly: ids in one of three known forms, or nothing at all."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.broker.envelope import MESSAGE_BYTES_MAX, item_flaw, message_flaw, plain_headers, safe_task_name
from service.broker.messages import EFFECTS_MAX, Message, read_effect_ids
from service.core.errors import ValidationError

ONE = "01991d2c-8b1e-7c3a-9a7b-0d4f6a1b2c3d"
TWO = "01991d2c-8b1e-7c3a-9a7b-0d4f6a1b2c3e"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_what_is_written_can_be_read() -> None:
    assert read_effect_ids([], Message("charge", "charge", (ONE, TWO)).kwargs()) == [ONE, TWO]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [([], {"effect_ids": [ONE]}), ([], {"effect_id": ONE}), ([[ONE]], {}), ([ONE], {}), ((), {"effect_ids": [ONE.upper()]})],
)  # fmt: skip
def test_every_version_in_flight_is_understood(args: list[object], kwargs: dict[str, object]) -> None:
    assert read_effect_ids(args, kwargs) == [ONE]


def test_an_id_named_twice_is_one_effect() -> None:
    assert read_effect_ids([], {"effect_ids": [TWO, ONE, TWO, ONE.upper()]}) == [TWO, ONE]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([], {}),
        ([], {"effect_ids": []}),
        ([], {"effect_ids": ONE}),
        ([], {"effect_id": [ONE]}),
        ([], {"effect_id": None}),
        ([], {"effect_ids": {ONE: 1}}),
        ([], {"effect_ids": [ONE], "amount": 4200}),
        ([], {"effect_ids": [ONE], "effect_id": ONE}),
        ([ONE], {"effect_id": ONE}),
        ([ONE, TWO], {}),
        ([], {"effect_ids": ["4242424242424242"]}),
        ([], {"effect_ids": [7]}),
        ([], {"effect_ids": [f"{ONE}\n"]}),
        ([], {"effect_ids": [ONE] * (EFFECTS_MAX + 1)}),
        ([{"amount": 4200}], {}),
    ],
)
def test_anything_else_is_refused_and_not_repeated_in_the_error(args: list[object], kwargs: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        read_effect_ids(args, kwargs)
    assert "42" not in str(raised.value)
    assert ONE not in str(raised.value)


@given(args=st.lists(json_values, max_size=3), kwargs=st.dictionaries(st.text(), json_values, max_size=3))
def test_reading_never_raises_anything_but_a_validation_error(args: list[object], kwargs: dict[str, object]) -> None:
    with suppress(ValidationError):
        assert read_effect_ids(args, kwargs)


@given(st.binary() | st.text() | json_values.map(json.dumps))
def test_no_list_item_whatsoever_gets_past_or_breaks_the_look(item: bytes | str) -> None:
    assert item_flaw(item)


@given(headers=json_values, payload=json_values)
def test_no_foreign_task_gets_past_or_breaks_the_look(headers: object, payload: object) -> None:
    assert message_flaw(headers, payload, 10)
    assert safe_task_name(headers).isascii()


def test_a_large_item_is_not_even_parsed() -> None:
    assert item_flaw(b"[" * (MESSAGE_BYTES_MAX + 1)) == "too large"
    assert message_flaw({"task": "charge", "id": ONE}, [[], {}, None], MESSAGE_BYTES_MAX + 1) == "too large"


def test_an_encoding_that_is_no_text_is_no_message() -> None:
    """It ended the worker, in kombu's `content_encoding.lower()`."""
    properties = {"delivery_tag": "1", "delivery_info": {"exchange": "", "routing_key": ""}, "body_encoding": "base64"}
    whole = {"body": "", "headers": {}, "properties": properties, "content-type": "application/json"}
    assert item_flaw(json.dumps({**whole, "content-encoding": "utf-8"})) is None
    assert item_flaw(json.dumps({**whole, "content-encoding": [7]})) == "not plain JSON"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("id", "a-name-of-a-stranger"),
        ("id", None),
        ("task", ["charge"]),
        ("task", "celery.group"),
        ("eta", "2999-01-01T00:00:00"),
        ("eta", 0),
        ("retries", 1),
        ("retries", "0"),
        ("expires", 7),
    ],
)
def test_a_message_that_wants_a_say_in_when_and_how_often_is_none_of_ours(header: str, value: object) -> None:
    ours = {"task": "charge", "id": ONE, "eta": None, "timelimit": [None, None], "retries": 0, "expires": None}
    assert message_flaw(ours, [[], {}, None], 10) is None
    assert message_flaw({**ours, header: value}, [[], {}, None], 10)


def test_celery_sees_no_header_it_would_act_upon() -> None:
    """`stamped_headers` with something that is no text ended the worker; `shadow` was printed."""
    foreign = {
        "stamped_headers": [{}],
        "stamps": 7,
        "shadow": "x",
        "timelimit": [0.01, 0.01],
        "called_directly": True,
        "traceparent": "00-1",
    }
    seen = plain_headers({"task": "charge", "id": ONE, "expires": None, **foreign})
    assert not foreign.keys() & seen.keys()
    assert (seen["task"], seen["id"], seen["root_id"]) == ("charge", ONE, ONE)
