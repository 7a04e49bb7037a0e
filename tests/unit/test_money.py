"""Money is an integer of minor units and a lowercase code; what Stripe would refuse never gets in."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import ValidationError
from service.core.money import AMOUNT_MAX, check_money, currencies, exponent, format_money

ALL = sorted(currencies())
CODES = st.sampled_from(ALL)
# Amounts that are right for every currency: whole units even where three decimals exist.
AMOUNTS = st.integers(1, AMOUNT_MAX // 1000).map(lambda units: units * 1000)


@given(amount=AMOUNTS, currency=CODES)
def test_whole_amounts_are_taken_in_every_currency_and_come_back_unchanged(amount, currency):
    assert check_money(amount, currency) == (amount, currency)


@given(amount=st.integers(1, AMOUNT_MAX), currency=CODES)
def test_an_amount_is_either_taken_unchanged_or_refused_by_name(amount, currency):
    try:
        assert check_money(amount, currency) == (amount, currency)
    except ValidationError as error:
        assert error.field == "amount"  # noqa: PT017 - either answer is right, each for some
        assert (currency in {"isk", "ugx"} and amount % 100) or (
            currency in {"bhd", "jod", "kwd", "omr", "tnd"} and amount % 10
        )


@given(amount=st.integers(0, AMOUNT_MAX), currency=CODES)
def test_the_printed_amount_is_the_amount(amount, currency):
    number, code = format_money(amount, currency).split()
    assert code == currency.upper()
    assert Decimal(number) * 10 ** exponent(currency) == amount


@given(currency=CODES)
def test_a_code_in_upper_case_is_refused_with_the_right_spelling(currency):
    with pytest.raises(ValidationError, match=f"write '{currency}'") as caught:
        check_money(4000, currency.upper())
    assert caught.value.field == "currency"


def test_currencies_are_lowercase_codes_of_three_letters_without_metals_and_test_codes():
    assert all(len(code) == 3 and code.isalpha() and code.islower() for code in ALL)
    assert {"eur", "usd", "jpy", "isk", "bhd"} <= set(ALL)
    assert not {"xau", "xts", "xxx", "xdr", "che"} & set(ALL)


@pytest.mark.parametrize(
    ("currency", "places"),
    [("eur", 2), ("jpy", 0), ("bhd", 3), ("isk", 0), ("ugx", 0), ("huf", 2), ("twd", 2), ("clp", 0)],
)
def test_decimals_are_those_of_iso_4217(currency, places):
    assert exponent(currency) == places


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(4200, "eur", "42.00 EUR"), (1, "eur", "0.01 EUR"), (500, "jpy", "500 JPY"), (1230, "bhd", "1.230 BHD")],
)
def test_people_read_units_and_decimals(amount, currency, text):
    assert format_money(amount, currency) == text


@pytest.mark.parametrize("amount", [True, False, 42.0, "4200", None, Decimal(42), [1]])
def test_only_an_integer_is_an_amount(amount):
    with pytest.raises(ValidationError, match="integer of minor units") as caught:
        check_money(amount, "eur")
    assert caught.value.field == "amount"


@pytest.mark.parametrize("amount", [0, -1, -AMOUNT_MAX, AMOUNT_MAX + 1, 10**30])
def test_an_amount_outside_the_limits_is_refused(amount):
    with pytest.raises(ValidationError) as caught:
        check_money(amount, "eur")
    assert caught.value.field == "amount"


def test_the_limits_themselves_are_taken():
    assert check_money(1, "eur")
    assert check_money(AMOUNT_MAX, "eur")


@pytest.mark.parametrize("currency", ["", "eu", "euro", "xxx", "xau", "€", None, 978, b"eur", " eur", "eur "])
def test_anything_but_a_currency_is_refused(currency):
    with pytest.raises(ValidationError) as caught:
        check_money(4200, currency)
    assert caught.value.field == "currency"


@pytest.mark.parametrize(("amount", "currency"), [(150, "isk"), (101, "ugx"), (1001, "bhd"), (5, "kwd")])
def test_amounts_that_stripe_would_round_are_refused(amount, currency):
    with pytest.raises(ValidationError, match="multiple of") as caught:
        check_money(amount, currency)
    assert caught.value.field == "amount"
