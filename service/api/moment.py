"""A moment in a request: RFC 3339 and always with a time zone, for without one it is another moment elsewhere."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

# The years that can be moved between time zones, stored and read back: those of `tasks.rules`.
_IS_MOMENT = re.compile(
    r"2[01][0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\Z"
)


def _moment(value: Any) -> Any:
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _IS_MOMENT.match(value):
        raise ValueError("must be a moment of RFC 3339 with a time zone, 2026-12-01T09:00:00Z, from 2000 to 2199")
    try:
        return datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError("there is no such day") from None  # the 31st of a month that has thirty


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
