"""The marks we leave on objects at the provider, so that each can be told from every other and found again.

Metadata is copied from a PaymentIntent to its charge and stands in events and reports (Stripe: Metadata). It holds
ids only, nothing about a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.core.effect import Attempt
from service.core.keys import dedupe_hash

EFFECT_ID = "effect_id"
CAPTURE_EFFECT_ID = "capture_effect_id"
"""Written by the capture itself, onto the charge's PaymentIntent: it tells whose capture took the money."""


DEDUPE = "dedupe"
"""The effect's name as a hash: a database that has forgotten the effect finds it again when its caller repeats."""


def metadata_of(attempt: Attempt) -> dict[str, str]:
    """The caller's metadata and ours, the same bytes for ever (I6); ours cannot be forged."""
    metadata = dict(sorted((attempt.request.get("metadata") or {}).items()))
    return {**metadata, DEDUPE: dedupe_hash(attempt.tenant, attempt.kind, attempt.dedupe_key), EFFECT_ID: attempt.id}


def owner_of(attempt: Attempt) -> str:
    """The mark that this effect's object carries: its own id, unless it has adopted an orphan of an earlier life."""
    return str(attempt.progress.get(EFFECT_ID) or attempt.id)


def mark_of(thing: Mapping[str, Any], name: str = EFFECT_ID) -> str | None:
    """What an object says of the effect it belongs to; None when it says nothing."""
    metadata = thing.get("metadata")
    found = metadata.get(name) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, str) else None
