"""`/v1/outbox/stats` and `/v1/groups`: what waits, what fails in the same way, and what people wrote about it."""

from __future__ import annotations

from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from service.api import openapi
from service.api.access import Caller, require
from service.api.body import model
from service.api.operation_views import Group, Groups, Stats
from service.api.problems import Problem
from service.engine import groups
from service.engine.groups import NOTE_CHARACTERS_MAX
from service.store import outbox
from service.store.database import statement

router = APIRouter(prefix="/v1", tags=["operations"])

Reader = Annotated[Caller, Depends(require("operations:read"))]
Writer = Annotated[Caller, Depends(require("operations:write"))]


class Written(BaseModel):
    """A note about a group of failures: a link to the incident, what was found out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    note: Annotated[str, Field(min_length=1, max_length=NOTE_CHARACTERS_MAX, pattern=r"\S")]


@router.get("/outbox/stats", operation_id="outbox_stats", responses=openapi.shown())
def stats(caller: Reader) -> Stats:
    """Count what is not settled yet."""
    with statement() as connection:
        return Stats.model_validate(outbox.stats(connection, tenant=caller.tenant))


@router.get("/groups", operation_id="list_groups", responses=openapi.shown())
def list_groups(caller: Reader, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Groups:
    """List failures by the way they fail, largest group first."""
    return Groups(groups=[Group.model_validate(one) for one in groups.listed(tenant=caller.tenant, limit=limit)])


@router.post(
    "/groups/{group_id}/notes",
    operation_id="note_group",
    responses=openapi.shown(404, 408, 413, 415),
    openapi_extra={
        "requestBody": openapi.body(
            openapi.schema_of(Written), {"one": {"value": {"note": "INC-1234: Stripe is away"}}}
        )
    },
)
async def note_group(
    group_id: Annotated[str, Path(max_length=64, examples=["0f3a9c1b2d4e"])], request: Request, caller: Writer
) -> Group:
    """Keep a note with a group; whoever has effects in it can read it."""
    written = await model(request, Written)
    return await run_sync(lambda: _note(group_id, written.note, caller))


def _note(group_id: str, said: str, caller: Caller) -> Group:
    # One's own effects only: else a note would tell whether others have failures of this sort.
    if not groups.listed(tenant=caller.tenant, group=group_id, limit=1):
        raise Problem("group_not_found", "no failure of yours is in this group now")
    groups.note(group_id, said, actor=caller.actor, door="api", tenant=caller.tenant)
    return Group.model_validate(groups.listed(tenant=caller.tenant, group=group_id, limit=1)[0])
