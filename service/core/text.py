"""Text that can be stored and sent: no NUL, which Postgres refuses, and no half surrogate pair, which no wire holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.errors import ValidationError


def refuse_unstorable_text(value: Any, *, field: str) -> None:
    """Walk any JSON-like value, keys included. Raises ValidationError naming the field.

    Found out at accept: later, the refusal of the database would abort the caller's whole transaction.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            refuse_unstorable_text(name, field=field)
            refuse_unstorable_text(item, field=f"{field}.{name}")
    elif isinstance(value, list | tuple | set):
        for item in value:
            refuse_unstorable_text(item, field=field)
    elif isinstance(value, str) and ("\x00" in value or not _encodable(value)):
        raise ValidationError(f"{field} holds a NUL character or an unpaired surrogate; remove it", field=field)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
