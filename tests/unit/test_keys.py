"""A key names an effect for ever: it is checked once, and the same request always has the same fingerprint."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import ValidationError
from service.core.keys import DEDUPE_KEY_LENGTH_MAX, check_dedupe_key, check_name, fingerprint, step_key

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False)
)
REQUESTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        LEAVES, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=5), c, max_size=3), max_leaves=8
    ),
    max_size=5,
)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(request_=REQUESTS)
def test_the_order_of_fields_does_not_change_a_fingerprint(request_):
    assert fingerprint("charge", request_) == fingerprint("charge", reordered(request_))


@given(one=REQUESTS, other=REQUESTS)
def test_equal_fingerprints_mean_equal_requests(one, other):
    if fingerprint("charge", one) == fingerprint("charge", other):
        assert one == other


@given(request_=REQUESTS)
def test_the_kind_is_part_of_the_fingerprint(request_):
    assert fingerprint("charge", request_) != fingerprint("email", request_)


def test_a_fingerprint_is_a_sha256_and_pinned_because_it_is_stored():
    mark = fingerprint("charge", {"currency": "eur", "amount": 4200})
    assert re.fullmatch(r"[0-9a-f]{64}", mark)
    assert mark == fingerprint("charge", {"amount": 4200, "currency": "eur"})
    assert mark == "a4b31605b27864570b6591a28774e17083c9fb0a89b8b4fd15eb530807e7e9a3"


def test_what_json_cannot_say_has_no_fingerprint():
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint("charge", {"amount": float("nan")})


@given(key=st.from_regex(r"\A[!-~]{1,40}\Z").filter(lambda k: not any(c.isdigit() for c in k)))
def test_printable_ascii_without_spaces_is_a_key(key):
    assert check_dedupe_key(key) == key


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_told_with_an_example(key):
    with pytest.raises(ValidationError, match="dedupe_key='order:17:charge'") as caught:
        check_dedupe_key(key)
    assert caught.value.field == "dedupe_key"


@pytest.mark.parametrize(
    "key", [17, b"order", ("order", 17), "order 17", "order\n17", "ordér", "order:17\n", "\t", "a\x00b"]
)
def test_anything_else_is_refused(key):
    with pytest.raises(ValidationError) as caught:
        check_dedupe_key(key)
    assert caught.value.field == "dedupe_key"


def test_the_limit_of_a_key_is_stripes():
    assert check_dedupe_key("k" * DEDUPE_KEY_LENGTH_MAX)
    with pytest.raises(ValidationError, match="256 characters"):
        check_dedupe_key("k" * (DEDUPE_KEY_LENGTH_MAX + 1))


def test_a_card_number_is_no_key():
    with pytest.raises(ValidationError, match="card number"):
        check_dedupe_key("order:4242424242424242")


@pytest.mark.parametrize("name", ["default", "t1", "Shop_7.eu:main-1", "a" * 63])
def test_tenants_and_lanes_have_plain_names(name):
    assert check_name(name, field="tenant") == name


@pytest.mark.parametrize("name", ["", "_x", "-x", "a b", "a" * 64, "ü", None, 7, "a\n", "a/b"])
def test_other_names_are_refused_by_field(name):
    with pytest.raises(ValidationError) as caught:
        check_name(name, field="tenant")
    assert caught.value.field == "tenant"


def test_i6_the_key_of_a_step_is_the_id_and_the_step_and_nothing_else():
    assert step_key("0198", "create") == "0198:create"
    assert step_key("0198", "confirm") == "0198:confirm"
