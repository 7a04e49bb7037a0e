"""What the formats of our OpenAPI document mean, for schemathesis: texts that JSON Schema's patterns cannot tell."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from typing import Any

import schemathesis
from hypothesis import strategies as st

_PLAIN = string.ascii_letters + string.digits
# No digits: by chance they would be a card number once in a while, which is refused wherever it stands.
_LINE = st.text(st.characters(codec="utf-8", categories=("L", "P", "S")), min_size=1, max_size=200)
_MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2199, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - `timezones` adds it

schemathesis.openapi.format("single-line", _LINE)
schemathesis.openapi.format("idempotency-key", st.text(_PLAIN, min_size=1, max_size=60).map(lambda key: f'"{key}"'))
schemathesis.openapi.format("dedupe-key", st.text(_PLAIN, min_size=1, max_size=60))
schemathesis.openapi.format("header-wish", st.text(_PLAIN, max_size=20))
schemathesis.openapi.format("date-time", _MOMENTS.map(lambda moment: moment.isoformat().replace("+00:00", "Z")))
schemathesis.openapi.format("cursor", st.just(""))  # the beginning: no other can be made up


@schemathesis.hook
def filter_body(_: Any, body: Any) -> bool:
    """To JSON Schema 42.0 is an integer; to us it is an amount that went through a float somewhere, and refused."""
    return not _integral_float(body)


def _integral_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_integral_float(item) for item in value.values())
    if isinstance(value, list):
        return any(_integral_float(item) for item in value)
    return isinstance(value, float) and value.is_integer()
