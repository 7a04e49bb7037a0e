"""A card number is refused wherever it stands, and what merely looks busy with digits is not."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.card import looks_like_card_number, refuse_card_numbers
from service.core.errors import ValidationError

# Test numbers that the networks and Stripe publish (Stripe: Testing).
CARDS = [
    "4242424242424242",
    "4000056655665556",
    "5555555555554444",
    "2223003122003222",
    "5105105105105100",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
    "6011981111111113",
    "3056930009020004",
    "36227206271667",
    "3566002020360505",
    "6200000000000005",
    "4222222222222",
]


def luhn_digit(body: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(body)))
    return str(-total % 10)


@pytest.mark.parametrize("card", CARDS)
def test_published_test_numbers_are_recognised(card):
    assert looks_like_card_number(card)


@given(body=st.from_regex(r"\A4[0-9]{14}\Z"))
def test_every_valid_visa_number_is_recognised_and_one_wrong_digit_is_not(body):
    card = body + luhn_digit(body)
    wrong = body + str((int(card[-1]) + 1) % 10)
    assert looks_like_card_number(card)
    assert not looks_like_card_number(wrong)


@given(
    card=st.sampled_from(CARDS),
    separator=st.sampled_from([" ", "-", "."]),
    before=st.sampled_from(["", "no ", "#", "x"]),
)
def test_separators_and_words_around_do_not_hide_it(card, separator, before):
    grouped = separator.join(card[i : i + 4] for i in range(0, len(card), 4))
    assert looks_like_card_number(f"{before}{grouped}, thank you")


def test_full_width_digits_do_not_hide_it():
    assert looks_like_card_number("4242424242424242".translate({ord(str(d)): chr(0xFF10 + d) for d in range(10)}))


@given(value=st.uuids())
def test_no_uuid_is_mistaken_for_a_card(value):
    assert not looks_like_card_number(str(value))
    assert not looks_like_card_number(f"order:{value}:charge")


@given(number=st.integers(0, 2**80 - 1), millis=st.integers(1_500_000_000_000, 2_500_000_000_000))
def test_no_uuid_v7_is_mistaken_for_a_card(number, millis):
    value = uuid.UUID(int=(millis << 80 | number) & ~(0xF << 76) | 7 << 76)
    assert not looks_like_card_number(str(value))


@given(data=st.binary(min_size=12, max_size=64))
def test_no_hex_digest_with_a_letter_is_mistaken_for_a_card(data):
    digest = data.hex()
    # A digest of digits alone cannot be told from a number; of a sha-256 one in 10^13 is.
    if any(c in "abcdef" for c in digest):
        assert not looks_like_card_number(digest)
        assert not looks_like_card_number(f"key-{digest}")


@given(moment=st.datetimes(min_value=datetime(2001, 9, 10), max_value=datetime(2090, 1, 1)))  # noqa: DTZ001
def test_no_timestamp_is_mistaken_for_a_card(moment):
    utc = moment.replace(tzinfo=UTC)
    for text in (
        utc.isoformat(),
        utc.strftime("%Y%m%d%H%M%S"),
        utc.strftime("%Y%m%d%H%M%S%f")[:17],
        str(int(utc.timestamp() * 1000)),
    ):
        assert not looks_like_card_number(text)


@pytest.mark.parametrize(
    "text", ["", "order:17:charge", "pm_1NZx42", "1234567890123456", "0000000000000000", "42" * 40]
)
def test_ordinary_text_passes(text):
    assert not looks_like_card_number(text)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"description": "card 4242 4242 4242 4242"}, "kwargs.description"),
        ({"metadata": {"note": "4242424242424242"}}, "kwargs.metadata.note"),
        ({"metadata": {"4242424242424242": "x"}}, "kwargs.metadata"),
        ({"items": ["fine", ["4242424242424242"]]}, "kwargs.items"),
        ({"amount": 4242424242424242}, "kwargs.amount"),
        ({"pair": ("a", "4242424242424242")}, "kwargs.pair"),
        ({"several": {"4242424242424242"}}, "kwargs.several"),
    ],
)
def test_it_is_found_at_any_depth_and_the_message_names_the_place_but_not_the_number(value, field):
    with pytest.raises(ValidationError, match="card number") as caught:
        refuse_card_numbers(value, field="kwargs")
    assert caught.value.field == field
    assert "4242" not in str(caught.value)


def test_values_without_digits_pass_untouched():
    refuse_card_numbers({"a": None, "b": True, "c": 4200, "d": 1.5, "e": ["x", {"y": "z"}]}, field="kwargs")
