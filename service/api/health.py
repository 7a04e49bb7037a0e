"""`/livez`: this process answers. `/readyz`: it can accept effects. The broker is not asked: the outbox absorbs it."""

from __future__ import annotations

from typing import Any

import anyio
from anyio import CapacityLimiter
from fastapi import APIRouter, Request, Response

from service import settings
from service.api import openapi
from service.api.views import Health
from service.core.errors import CounterfoilError
from service.engine import quarantine
from service.store.database import statement
from service.store.schema import code_head, database_head

PATIENCE_SECONDS = 3.0  # probes give up after a few seconds; an answer after that helps nobody
_QUARANTINED = "quarantined"
PROBES_MAX = 2  # threads of their own: requests that wait for a dead database must not make this one wait too

router = APIRouter()
_BAD: dict[int | str, dict[str, Any]] = {
    status: answer for status, answer in openapi.problems().items() if status in (400, 406, 500)
}


@router.get("/livez", operation_id="livez", tags=["health"], responses=_BAD)
async def livez() -> Health:
    """Whether the process answers; nothing else is looked at."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    tags=["health"],
    responses={503: {"model": Health, "description": "Not ready; `status` says why"}, **_BAD},
)
async def readyz(request: Request, response: Response) -> Health:
    """Whether effects can be accepted: the database answers and has the tables of this version."""
    status = "the database did not answer in time"
    with anyio.move_on_after(PATIENCE_SECONDS):
        status = await anyio.to_thread.run_sync(_status, abandon_on_cancel=True, limiter=_limiter(request))
    if request.app.state.draining:
        status = "stopping"
    # In quarantine effects are accepted as ever, so this process stays in service; it only says so.
    if status != "ok" and not status.startswith(_QUARANTINED):
        response.status_code = 503
    return Health(status=status)


def _limiter(request: Request) -> CapacityLimiter:
    limiter = request.app.state.probes
    assert isinstance(limiter, CapacityLimiter)  # noqa: S101 - set where the application is made
    return limiter


def _status() -> str:
    try:
        with statement() as connection:
            there = database_head(connection)
    except CounterfoilError:
        return "the database does not answer"
    if there != code_head():
        return (
            f"the database is at migration {there or 'none'}, this version needs {code_head()}: counterfoil db upgrade"
        )
    found = quarantine.standing(settings.load())
    return "ok" if found.open else quarantine.sentence(found)
