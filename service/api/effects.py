"""`GET /v1/effects/{id}` and `GET /v1/effects`: how effects stand, in keyset pages that no insert can shift."""

from __future__ import annotations

import uuid
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Response

from service.api.problems import Problem
from service.api.views import Effect, Page
from service.core.state import State
from service.store import effects
from service.store.database import statement
from tasks.effect_task import DEFAULT_TENANT

PAGE_MAX = 200
router = APIRouter(prefix="/v1/effects")


@router.get("/{effect_id}", operation_id="get_effect")
def get_effect(effect_id: Annotated[str, Path(max_length=64)]) -> Effect:
    """Show one effect."""
    row = None
    if known := _uuid(effect_id):
        with statement() as connection:
            row = effects.get(connection, known, tenant=DEFAULT_TENANT)
    if row is None:
        raise Problem("effect_not_found", "no effect has this id")
    return Effect.of(row)


@router.get("", operation_id="list_effects")
def list_effects(
    response: Response,
    state: State | None = None,
    kind: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_.:-]{1,63}$")] = None,
    after: Annotated[uuid.UUID | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
) -> Page:
    """List effects, newest first."""
    filters = {"tenant": DEFAULT_TENANT, "state": state.value if state else None, "kind": kind}
    with statement() as connection:
        rows = effects.page(connection, filters, after=str(after) if after else None, limit=limit + 1)
    page = Page(effects=[Effect.of(row) for row in rows[:limit]])
    if len(rows) > limit:
        query = {"state": filters["state"], "kind": kind, "after": page.effects[-1].id, "limit": limit}
        page.next = f"/v1/effects?{urlencode({name: value for name, value in query.items() if value is not None})}"
        response.headers["Link"] = f'<{page.next}>; rel="next"'
    return page


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
