"""What travels: a task name, a lane and effect ids, nothing else; whoever reads the broker learns nothing.

The body of a message is wire format. A worker understands every version that may still be in flight during a
rolling deploy: `{"effect_ids": [...]}` (written today), `{"effect_id": "..."}` and one positional argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.core.errors import ValidationError

VERSION_HEADER = "counterfoil-version"
VERSION = 1
# The relay sends 32 at most; a message that names more than this was not written by one.
EFFECTS_MAX = 1_000

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Message:
    """Effects of one kind and lane, to be performed by the task of that name."""

    task: str
    lane: str
    effect_ids: tuple[str, ...]

    def kwargs(self) -> dict[str, list[str]]:
        """The body, in the version written today."""
        return {"effect_ids": list(self.effect_ids)}


def read_effect_ids(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """The ids a message names, each once, in order. Raises ValidationError (without the content) if it is not ours."""
    named = _named(args, kwargs)
    ids = [named] if isinstance(named, str) else named
    if not isinstance(ids, list | tuple):
        raise ValidationError("the message names no list of effects", field="effect_ids")
    if not 1 <= len(ids) <= EFFECTS_MAX:
        raise ValidationError(
            f"the message names {len(ids)} effects; 1 to {EFFECTS_MAX} are possible", field="effect_ids"
        )
    return list(dict.fromkeys(_uuid(item) for item in ids))


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if not args and set(kwargs) == {"effect_ids"}:
        return _listed(kwargs["effect_ids"])
    if not args and set(kwargs) == {"effect_id"}:
        return _single(kwargs["effect_id"])
    if len(args) == 1 and not kwargs:
        return args[0]
    raise ValidationError("the message holds something other than effect ids", field="effect_ids")


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        raise ValidationError("effect_ids is not a list", field="effect_ids")
    return value


def _single(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValidationError("effect_id is not one id", field="effect_id")
    return value


def _uuid(value: Any) -> str:
    if isinstance(value, str) and _UUID.match(value.lower()):
        return value.lower()
    raise ValidationError("the message names an effect by something that is no UUID", field="effect_ids")
