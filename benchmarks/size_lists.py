"""Every sort of list that the API offers, asked of a tenant of `benchmarks.size`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from service.store import listing

PAGE = 40  # the empty system has as many of each sort
LISTED = "tenant-2"


def lists() -> dict[str, Callable[[], object]]:
    """Each filter of the API, found and not found."""
    [one] = listing.page(listing.Filters(LISTED, state="succeeded"), after=None, limit=1)
    middle: dict[str, Any] = {"created_since": ago(200), "created_until": ago(100)}
    asked = {
        "a tenant": listing.Filters(LISTED),
        "a small tenant": listing.Filters("small"),
        "by kind": listing.Filters(LISTED, kind="email"),
        "of a kind never asked for": listing.Filters(LISTED, kind="refund"),
        "succeeded": listing.Filters(LISTED, state="succeeded"),
        "failed": listing.Filters(LISTED, state="failed"),
        "failed of one kind": listing.Filters(LISTED, state="failed", kind="charge"),
        "failed where none has": listing.Filters("clean", state="failed"),
        "pending": listing.Filters(LISTED, state="pending"),
        "pending where none is": listing.Filters("small", state="pending"),
        "parked where none is": listing.Filters(LISTED, state="parked"),
        "by key": listing.Filters(LISTED, key=one["dedupe_key"]),
        "by key and kind": listing.Filters(LISTED, kind=one["kind"], key=one["dedupe_key"]),
        "by key prefix": listing.Filters(LISTED, kind="charge", key_prefix="order:1"),
        "by ref": listing.Filters(LISTED, ref=one["provider_ref"]),
        "by a link that is not": listing.Filters(LISTED, concerns=one["id"]),
        "of a hundred days": listing.Filters(LISTED, **middle),
        "failed of a hundred days": listing.Filters(LISTED, state="failed", **middle),
    }
    return {f"list {name}": partial(listing.page, f, after=None, limit=PAGE) for name, f in asked.items()}


def ago(days: float) -> datetime:
    """A moment so long ago."""
    return datetime.now(UTC) - timedelta(days=days)
