"""Takes out of any text what must not stand in a log: card numbers, addresses, keys, tokens, passwords in URLs.

The second line of defence, for libraries' lines and tracebacks; our own lines do not carry such things to begin with.
"""

from __future__ import annotations

import re
import unicodedata

from service.core.card import looks_like_card_number

TEXT_LENGTH_MAX = 16_000  # a traceback with its causes; a body that slipped into a message is cut

_URL_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:'\"]*:[^\s@'\"]*|[^\s/@'\"?#]+)@")
_PROVIDER_KEY = re.compile(r"\b(?:[srp]k_(?:live|test)_|whsec_|re_[A-Za-z0-9]{4,}_|[srp]k_)[A-Za-z0-9_]{6,}")
_CLIENT_SECRET = re.compile(r"_secret_[A-Za-z0-9]+")
# A saved card or its owner at the provider: tokens cannot be charged without our key, and still name a person's card.
_CARD_REFERENCE = re.compile(r"\b(?:pm|card|src|tok|ba|cus)_[A-Za-z0-9][A-Za-z0-9_]{2,}")
_CREDENTIAL = re.compile(
    r"(?i)\b(authorization|password|passwd|secret|api[-_]?key|bearer)(\W{1,4})(?:(?:bearer|basic)\s+)?[^\s,;&'\")}\]]+"
)
_MAIL_ADDRESS = re.compile(r"[^\s@<>\"'(),;:\[\]{}=]+@[\w-]+(?:\.[\w-]+)+")
_DIGITS = re.compile(r"(?<!\d)\d(?:[ .\-]?\d){12,18}(?!\d)")

_RULES = (
    (_URL_LOGIN, "[withheld]@"),
    (_PROVIDER_KEY, "[key withheld]"),
    (_CLIENT_SECRET, "_secret_[withheld]"),
    (_CARD_REFERENCE, "[card withheld]"),
    (_CREDENTIAL, r"\1\2[withheld]"),
    (_MAIL_ADDRESS, "[address withheld]"),
)


def scrub(text: str) -> str:
    """The text without them, and not endless."""
    clean = text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}… ({len(text)} characters)"
    clean = unicodedata.normalize("NFKC", clean)
    for pattern, instead in _RULES:
        clean = pattern.sub(instead, clean)
    return _without_cards(clean)


def _without_cards(text: str) -> str:
    if not looks_like_card_number(text):
        return text
    cut = _DIGITS.sub(lambda run: "[card withheld]" if looks_like_card_number(run.group()) else run.group(), text)
    return "[withheld: looks like a card number]" if looks_like_card_number(cut) else cut
