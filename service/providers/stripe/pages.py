"""Stripe's lists, page by page: newest first, a hundred at a time, at flat memory (Stripe: Pagination)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import sleep
from typing import Any

from service.core.errors import DependencyUnavailable
from service.providers.stripe.api import StripeApi

PAGE_OBJECTS = 100  # the most that Stripe gives
TRIES_MAX = 6  # a page is read again after 429 and 5xx: reading has no effect
FIRST_WAIT_SECONDS = 0.5


def pages(api: StripeApi, path: str, params: Mapping[str, Any], *, seconds: float) -> Iterator[list[dict[str, Any]]]:
    """Each page of a list, in Stripe's order; `seconds` for one page. Raises DependencyUnavailable."""
    after: dict[str, str] = {}
    while True:
        page = _read(api, path, {**params, "limit": PAGE_OBJECTS, **after}, seconds)
        objects = [item for item in page.get("data", []) if isinstance(item, dict)]
        if objects:
            yield objects
        if not objects or not page.get("has_more"):
            return
        after = {"starting_after": str(objects[-1]["id"])}


def _read(api: StripeApi, path: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
    for tries in range(TRIES_MAX):
        try:
            return api.read(path, params, seconds=seconds)
        except DependencyUnavailable:
            if tries == TRIES_MAX - 1:
                raise
        sleep(FIRST_WAIT_SECONDS * 2.0**tries)
    raise AssertionError
