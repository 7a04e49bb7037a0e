"""Stripe's form encoding, read and checked: `metadata[order]=17`, `payment_method_types[0]=card`.

A check refuses before the endpoint begins, so nothing of it is kept under an idempotency key
(Stripe docs, "Idempotent requests": parameter validation).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

Kind = Literal["text", "integer", "boolean", "hash", "list", "metadata", "any"]

_PART = re.compile(r"\[([^\]]*)\]")
# Stripe docs, "Metadata".
METADATA_KEYS_MAX = 50
METADATA_NAME_MAX = 40
METADATA_VALUE_MAX = 500


class BadParameter(Exception):
    """A parameter that Stripe would not take, with its words."""

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters of one endpoint: what each may hold, which must be there, and what else must be true of them."""

    fields: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    checks: tuple[Callable[[Mapping[str, Any]], None], ...] = ()

    def read(self, encoded: str) -> dict[str, Any]:
        """Decode and check. Raises BadParameter."""
        given = decode(encoded)
        for name in given:
            if name not in self.fields:
                raise BadParameter(name, f"Received unknown parameter: {name}", "parameter_unknown")
        for name in self.required:
            if given.get(name) in (None, ""):
                raise BadParameter(name, f"Missing required param: {name}.", "parameter_missing")
        params = {name: _checked(name, self.fields[name], value) for name, value in given.items()}
        for check in self.checks:
            check(params)
        return params


def decode(encoded: str) -> dict[str, Any]:
    """Form text as nested dicts; lists stay dicts by index until a field says that it is one."""
    root: dict[str, Any] = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        head, *parts = [name.split("[", 1)[0], *_PART.findall(name)]
        place, last = root, head
        for part in parts:
            nested = place.setdefault(last, {})
            if not isinstance(nested, dict):
                raise BadParameter(head, f"Invalid object: {head}", "parameter_invalid_string")
            place, last = nested, part or str(len(nested))
        place[last] = value
    return root


def _checked(name: str, kind: Kind, value: Any) -> Any:
    if kind == "any":
        return value
    if kind == "metadata":
        return _metadata(value)
    if isinstance(value, dict):
        return _nested(name, kind, value)
    return _plain(name, kind, value)


def _nested(name: str, kind: Kind, value: Mapping[str, Any]) -> Any:
    if kind == "hash":
        return value
    if kind == "list":
        return [value[index] for index in sorted(value, key=_index)]
    raise BadParameter(name, f"Invalid {kind}: {name}")


def _plain(name: str, kind: Kind, value: str) -> Any:
    if kind == "text":
        return value
    if kind == "integer":
        if re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        raise BadParameter(name, f"Invalid integer: {value}", "parameter_invalid_integer")
    if kind == "boolean" and value in ("true", "false"):
        return value == "true"
    raise BadParameter(name, f"Invalid {kind}: {value}")


def _index(part: str) -> int:
    return int(part) if part.isdigit() else 0


def _metadata(value: Any) -> dict[str, str]:
    if value == "":
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise BadParameter("metadata", "Invalid metadata: values must be strings")
    if len(value) > METADATA_KEYS_MAX:
        raise BadParameter("metadata", f"You can specify up to {METADATA_KEYS_MAX} keys.")
    for name, item in value.items():
        if len(name) > METADATA_NAME_MAX:
            raise BadParameter("metadata", f"Metadata keys can be up to {METADATA_NAME_MAX} characters long.")
        if len(item) > METADATA_VALUE_MAX:
            raise BadParameter(f"metadata[{name}]", f"Metadata values can have up to {METADATA_VALUE_MAX} characters.")
    return {name: item for name, item in value.items() if item != ""}
