"""Text that can be stored and sent: no NUL, which Postgres refuses, and no half surrogate pair, which no wire holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.errors import ValidationError

DEPTH_MAX = 20  # levels of lists and objects; our requests have two, and a walk must end before Python's stack does


def refuse_unstorable_text(value: Any, *, field: str, depth: int = 0) -> None:
    """Walk any JSON-like value, keys included. Raises ValidationError naming the field.

    Found out at accept: later, the refusal of the database would abort the caller's whole transaction.
    """
    if depth > DEPTH_MAX:
        raise ValidationError(f"{field.partition('.')[0]} is nested more than {DEPTH_MAX} levels deep", field="kwargs")
    if isinstance(value, Mapping):
        for name, item in value.items():
            refuse_unstorable_text(name, field=field, depth=depth + 1)
            refuse_unstorable_text(item, field=f"{field}.{name}", depth=depth + 1)
    elif isinstance(value, list | tuple | set):
        for item in value:
            refuse_unstorable_text(item, field=field, depth=depth + 1)
    elif isinstance(value, str) and ("\x00" in value or not _encodable(value)):
        raise ValidationError(f"{field} holds a NUL character or an unpaired surrogate; remove it", field=field)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
