"""Card numbers never enter: whatever looks like one is refused, wherever it stands (PCI DSS)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from service.core.errors import ValidationError

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HASH = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[a-fA-F])[0-9a-fA-F]{24,}(?![0-9A-Za-z])")
_DIGITS = re.compile(r"(?<![0-9])[0-9](?:[ .\-]?[0-9]){12,18}(?![0-9])")

# Issuer ranges and lengths of ISO/IEC 7812 as the networks publish them. Without them one timestamp in ten would
# pass the checksum and be refused; with them "2026…" and Unix times are never mistaken for a card.
_ISSUERS = re.compile(
    r"(?:4[0-9]{12}(?:[0-9]{3}){0,2}"  # Visa
    r"|(?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|[689][0-9])[0-9]{11,16}"  # Diners
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12}(?:[0-9]{3})?"  # Discover
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}"  # JCB
    r"|62[0-9]{14,17}"  # UnionPay
    r"|(?:50|5[6-8]|6[0-9])[0-9]{11,17})\Z"  # Maestro
)


def looks_like_card_number(text: str) -> bool:
    """Whether the text holds a card number: 13 to 19 digits of an issuer's range with a valid checksum.

    Identifiers that merely contain digits (UUIDs, hex digests) do not count.
    """
    if text.isascii() and not _DIGITS.search(text):
        return False  # the usual case, before anything is taken out
    plain = _HASH.sub(" x ", _UUID.sub(" x ", unicodedata.normalize("NFKC", text)))
    return any(_is_card("".join(filter(str.isdigit, run.group()))) for run in _DIGITS.finditer(plain))


def _is_card(digits: str) -> bool:
    if not _ISSUERS.match(digits):
        return False
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def refuse_card_numbers(value: Any, *, field: str) -> None:
    """Walk any JSON-like value, keys included. Raises ValidationError that names the field and never the digits."""
    if isinstance(value, str):
        if looks_like_card_number(value):
            raise ValidationError(
                f"{field} holds what looks like a card number; send the provider's token (pm_…) instead",
                field=field,
            )
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        refuse_card_numbers(str(value), field=field)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            refuse_card_numbers(str(key), field=field)
            refuse_card_numbers(item, field=f"{field}.{key}")
    elif isinstance(value, list | tuple | set):
        for item in value:
            refuse_card_numbers(item, field=field)
