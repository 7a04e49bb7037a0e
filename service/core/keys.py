"""Keys: the caller's dedupe key, the fingerprint of a request, and the provider's idempotency keys made from an id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from service.core.card import refuse_card_numbers
from service.core.errors import ValidationError

DEDUPE_KEY_LENGTH_MAX = 255  # Stripe's own limit for a key (Stripe: Idempotent requests): nobody meets two limits
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}\Z")


def check_dedupe_key(key: object) -> str:
    """Return the key when it can stand for ever. Raises ValidationError naming the fix."""
    if key is None or key == "":
        raise ValidationError(
            "dedupe_key is required: pass dedupe_key='order:17:charge', this effect's name, the same on every try",
            field="dedupe_key",
        )
    if not isinstance(key, str):
        raise ValidationError(f"dedupe_key must be a string, not {type(key).__name__}", field="dedupe_key")
    if len(key) > DEDUPE_KEY_LENGTH_MAX:
        raise ValidationError(
            f"dedupe_key has {len(key)} characters; the limit is {DEDUPE_KEY_LENGTH_MAX}", field="dedupe_key"
        )
    if not _PRINTABLE_ASCII.match(key):
        raise ValidationError("dedupe_key may hold printable ASCII without spaces only", field="dedupe_key")
    refuse_card_numbers(key, field="dedupe_key")
    return key


def check_name(value: object, *, field: str) -> str:
    """Return a tenant or lane name: 1 to 63 of letters, digits and `_.:-`. Raises ValidationError."""
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValidationError(
            f"{field} must be 1 to 63 letters, digits or _.:- and start with a letter or digit", field=field
        )
    return value


def fingerprint(kind: str, request: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of the canonical request: equal requests have equal fingerprints in any order of fields."""
    canonical = json.dumps([kind, request], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def step_key(effect_id: str, step: str) -> str:
    """The provider's idempotency key of one step: made of the effect's id, so one string for ever (I6).

    Stripe asks for no sensitive data in keys (Stripe: Idempotent requests); an id and a verb hold none.
    """
    return f"{effect_id}:{step}"


def dedupe_hash(tenant: str, kind: str, dedupe_key: str) -> str:
    """SHA-256 (hex) of an effect's name. It goes to the provider as metadata, where the name itself does not belong.

    A database that has forgotten an effect finds it there when its caller repeats the key (`store.orphans`).
    """
    return hashlib.sha256(f"{tenant}\n{kind}\n{dedupe_key}".encode()).hexdigest()
