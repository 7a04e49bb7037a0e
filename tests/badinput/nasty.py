"""Strings and values that have broken software before, and the two things that must never be repeated to anybody.

`PLANTED` stands in what a caller would not want to read in a log; `card` draws numbers that pass the checksum.
"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

PLANTED = "zq-planted-secret"
"""No log line, error, answer, row or message of ours may hold it."""

STRINGS = (
    "", " ", "\t", "\n", "\r\n", "\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u200b", "\u202e", "\ufeff", "\ufffe",
    "\ud800", "\udfff", "a\u0301" * 40, "Z\u0351\u036b\u0343\u036a\u0302" * 9, "👩‍👩‍👧‍👦", "🏳️‍🌈" * 20, "ﷺ" * 30, "İ", "ß", "ﬁ", "１２３４", "٣٤", "NaN",
    "null", "None", "undefined", "true", "-0", "1e400", "0x1f", "1_000", "१२३", "9" * 400, "-1", "1.0", "4200.00", "€42", "42,00",
    "'", '"', "\\", "`", "';--", "' or 1=1 --", "1; drop table effects; --", "$$; select pg_sleep(9); $$", "%s%s%n", "%(x)s",
    "{0}", "{{7*7}}", "${jndi:ldap://x}", "<script>alert(1)</script>", "]]>", "<!--", "&lt;", "../../etc/passwd", "/dev/null",
    "C:\\CON", "file:///etc/passwd", "http://169.254.169.254/", "\r\nBcc: eve@example.test", "\nX-Injected: 1", "a\r\n\r\nGET / HTTP/1.1",
    "=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2+3", "\\u0000", "%00", "%0d%0aSet-Cookie:x=1", "&#0;", "\\x00", "()" * 200, "[" * 500,
    "a" * 256, "b" * 5_000, "é" * 1_001, "\u0000" * 9, "x" * 20_000, "true\x00false", "ada@", "@b", "a@b@c", "a b@c.test",
    "Ada <ada@example.test>", "a@b.test,c@d.test", "a@[127.0.0.1]", '"a b"@c.test', "a@b.test\nBcc: c@d.test", "pm_", "pm_\n1", "cus_../x",
)  # fmt: skip

_ISSUED = ("4", "51", "2221", "34", "37", "36", "6011", "3528", "62")
_LENGTHS = {"34": 15, "37": 15, "36": 14}


def card(draw: random.Random) -> str:
    """A number in an issuer's range with a valid checksum, written as people write it."""
    prefix = draw.choice(_ISSUED)
    length = _LENGTHS.get(prefix, 16)
    digits = prefix + "".join(draw.choice("0123456789") for _ in range(length - 1 - len(prefix)))
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
    number = digits + str(-total % 10)
    return draw.choice(
        [
            number,
            " ".join(number[i : i + 4] for i in range(0, length, 4)),
            "-".join([number[:4], number[4:8], number[8:]]),
        ]
    )


def string(draw: random.Random) -> str:
    """One of the corpus, or a blend of two."""
    one = draw.choice(STRINGS)
    return one if draw.random() < 0.7 else one[:2_000] + draw.choice(STRINGS)[:2_000]


class Odd:
    """Somebody's object: no JSON has it, and its text must not be read either."""

    def __repr__(self) -> str:
        return f"<Odd {PLANTED}>"


def values(draw: random.Random) -> Any:
    """A value of no type that any field of ours takes."""
    return draw.choice(
        [[], [1], {}, {"a": PLANTED}, [PLANTED], (), {1}, b"bytes", 1.5, -1.5, math.nan, math.inf, Decimal("1.10"), 1j, Odd(), Odd,
         datetime.now(UTC), nested(60), lambda: PLANTED, bytearray(b"x"), range(3), [None] * 1000]
    )  # fmt: skip


@cache
def nested(depth: int) -> Any:
    """Lists within objects within lists."""
    found: Any = PLANTED
    for level in range(depth):
        found = [found] if level % 2 else {"a": found}
    return found
