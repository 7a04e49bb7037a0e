"""Money is an integer of minor units and a lowercase ISO-4217 code; never a float, never a guess at decimals."""

from __future__ import annotations

from functools import cache

from iso4217 import Currency

from service.core.errors import ValidationError

AMOUNT_MAX = 99_999_999  # Stripe: up to eight digits (Supported currencies)

# Stripe takes these as two-decimal amounts but wants them whole (Supported currencies): safe
# to demand, because a whole amount is right under either reading.
WHOLE_ONLY = frozenset({"isk", "ugx"})
# Three-decimal currencies whose last digit Stripe wants to be zero (Supported currencies).
MULTIPLES_OF_TEN = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
# ISO-4217 entries that are not money one can charge: metals, bond units, test and "no currency" codes.
_NOT_MONEY = frozenset(
    {
        "xau",
        "xag",
        "xpd",
        "xpt",
        "xba",
        "xbb",
        "xbc",
        "xbd",
        "xdr",
        "xsu",
        "xua",
        "xts",
        "xxx",
        "che",
        "chw",
        "clf",
        "cou",
        "mxv",
        "usn",
        "uyi",
        "uyw",
        "bov",
        "xad",
    }
)


@cache
def currencies() -> frozenset[str]:
    """The currencies that may be charged: live ISO-4217 money, lowercase."""
    return frozenset(c.code.lower() for c in Currency) - _NOT_MONEY


@cache
def exponent(currency: str) -> int:
    """Decimal places between the unit and its minor unit, by ISO-4217 (never CLDR, which differs for 13)."""
    return int(Currency(currency.upper()).exponent or 0)


def check_money(amount: object, currency: object) -> tuple[int, str]:
    """Return (amount, currency) when Stripe would take them. Raises ValidationError naming the field and the fix."""
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise ValidationError(
            f"amount must be an integer of minor units (4200 is 42.00 eur), not {type(amount).__name__}",
            field="amount",
        )
    if amount <= 0:
        raise ValidationError(f"amount must be positive, not {amount}", field="amount")
    if amount > AMOUNT_MAX:
        raise ValidationError(f"amount {amount} is over the limit of {AMOUNT_MAX} minor units", field="amount")
    if not isinstance(currency, str):
        raise ValidationError(
            f"currency must be a lowercase ISO-4217 code, not {type(currency).__name__}", field="currency"
        )
    if currency not in currencies():
        lower = currency.lower()
        hint = f"; write {lower!r}" if lower in currencies() else ""
        raise ValidationError(f"currency {currency[:8]!r} is not a lowercase ISO-4217 code{hint}", field="currency")
    if currency in WHOLE_ONLY and amount % 100:
        raise ValidationError(f"amount in {currency} must be whole units: a multiple of 100", field="amount")
    if currency in MULTIPLES_OF_TEN and amount % 10:
        raise ValidationError(f"amount in {currency} must be a multiple of 10 minor units", field="amount")
    return amount, currency


def format_money(amount: int, currency: str) -> str:
    """For people: 4200 eur → '42.00 EUR'."""
    places = exponent(currency)
    unit = 10**places
    decimals = f".{amount % unit:0{places}d}" if places else ""
    return f"{amount // unit}{decimals} {currency.upper()}"
