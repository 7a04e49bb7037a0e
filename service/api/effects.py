"""`GET /v1/effects`, `/v1/effects/{id}` and its events: how effects stand, in keyset pages that no insert can shift."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Response

from service.api import cursor, openapi
from service.api.access import Caller, require
from service.api.moment import Moment
from service.api.problem_types import TYPES
from service.api.problems import Problem
from service.api.submission import TASKS
from service.api.views import Effect, Events, Page
from service.core.state import State
from service.store import effects, journal, listing
from service.store.database import statement
from service.store.listing import Filters

PAGE_MAX = 200
ROUTE = "/v1/effects"
router = APIRouter(prefix=ROUTE, tags=["effects"])

_KEY = r"^[!-~]{1,255}$"
Reader = Annotated[Caller, Depends(require("effects:read"))]
Id = Annotated[
    str, Path(max_length=64, description="the effect's id", examples=["019a2f6e-0000-7000-8000-000000000017"])
]


@router.get(
    "/{effect_id}",
    operation_id="get_effect",
    responses={200: {"headers": openapi.ANSWER_HEADERS}, **openapi.problems(404)},
)
def get_effect(effect_id: Id, caller: Reader) -> Effect:
    """Show one effect."""
    return Effect.of(_found(effect_id, caller))


@router.get(
    "/{effect_id}/events",
    operation_id="list_events",
    responses={200: {"headers": openapi.ANSWER_HEADERS}, **openapi.problems(404)},
)
def list_events(effect_id: Id, caller: Reader) -> Events:
    """Tell what has happened to one effect, oldest first: its journal."""
    row = _found(effect_id, caller)
    with statement() as connection:
        facts = journal.of(connection, row["id"], since=row["created_at"])
    return Events.model_validate({"events": facts, "more": len(facts) >= journal.FACTS_SHOWN_MAX})


@router.get(
    "",
    operation_id="list_effects",
    responses={200: {"headers": openapi.headers_of("Link")}, **openapi.problems(422)},
)
def list_effects(  # noqa: PLR0917 - each is a query parameter, by name
    response: Response,
    caller: Reader,
    state: Annotated[State | None, Query(description="where it stands")] = None,
    kind: Annotated[str | None, Query(json_schema_extra=openapi.enum(list(TASKS)))] = None,
    key: Annotated[str | None, Query(pattern=_KEY, description="the dedupe key")] = None,
    key_prefix: Annotated[
        str | None, Query(pattern=_KEY, description="how the key begins; orders by kind and key")
    ] = None,
    ref: Annotated[
        str | None, Query(pattern=r"^[!-~]{1,255}$", description="the provider's id", examples=["pi_3"])
    ] = None,
    caused_by: Annotated[uuid.UUID | None, Query(description="the effect whose success asked for it")] = None,
    concerns: Annotated[uuid.UUID | None, Query(description="the charge it acts upon")] = None,
    created_since: Annotated[Moment | None, Query(examples=["2026-12-01T09:00:00Z"])] = None,
    created_until: Annotated[Moment | None, Query(description="before this moment")] = None,
    after: Annotated[
        str | None,
        Query(alias="cursor", description="from `next` of the page before", json_schema_extra={"format": "cursor"}),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
) -> Page:
    """List effects, newest first (by key when `key_prefix` is given). Filters are joined by "and".

    A cursor belongs to the filters beside it: follow `next`, or the header Link (`rel="next"`), as it is.
    """
    if kind is not None and kind not in TASKS:
        raise Problem("invalid_request", f"kind must be one of {', '.join(TASKS)}", field="kind")
    filters = Filters(
        caller.tenant,
        kind=kind,
        state=state.value if state else None,
        key=key,
        key_prefix=key_prefix,
        ref=ref,
        caused_by=str(caused_by) if caused_by else None,
        concerns=str(concerns) if concerns else None,
        created_since=created_since,
        created_until=created_until,
    )
    return _page(response, filters, after, limit)


def _page(response: Response, filters: Filters, given: str | None, limit: int) -> Page:
    chosen = filters.chosen()
    try:
        rows = listing.page(filters, after=cursor.unseal(given, chosen) if given else None, limit=limit + 1)
    except listing.TooWide:
        raise Problem("list_too_wide", TYPES["list_too_wide"].text) from None
    page = Page(effects=[Effect.of(row) for row in rows[:limit]])
    if len(rows) > limit:
        page.next = _next(chosen, cursor.seal(listing.place(filters, rows[limit - 1]), chosen), limit)
        response.headers["Link"] = f'<{page.next}>; rel="next"'
    return page


def _next(chosen: dict[str, Any], place: str, limit: int) -> str:
    said = {name: _text(value) for name, value in chosen.items() if name != "tenant"}
    return f"{ROUTE}?{urlencode({**said, 'cursor': place, 'limit': limit})}"


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _found(effect_id: str, caller: Caller) -> dict[str, Any]:
    row = None
    if known := _uuid(effect_id):
        with statement() as connection:
            row = effects.get(connection, known, tenant=caller.tenant)
    if row is None:
        raise Problem("effect_not_found", "no effect has this id")
    return row


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
