"""The application: routes, problems instead of tracebacks, and as many threads as there are connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from service.api import accepting, batch, effects, health, openapi, operations, outbox, problems, webhooks
from service.api.admission import WAITING_MAX, Admission
from service.api.arrival import Arrival
from service.api.manners import well_mannered
from service.api.methods import Methods, allow
from service.api.problems import Problem
from service.core.errors import CounterfoilError, SettingsError
from service.settings import Settings
from service.store.database import POOL_OVERFLOW, POOL_SIZE

_LOOPBACK = ("127.", "::1", "localhost")


def create_app(settings: Settings, *, waiting_max: int = WAITING_MAX) -> FastAPI:
    """The ASGI application; beyond `waiting_max` that wait for a connection, callers are sent away.

    Raises SettingsError when it would listen where anybody could call it.
    """
    refuse_open_door(settings)
    app = FastAPI(
        title="Counterfoil",
        version=version("counterfoil"),
        summary="Charges and e-mails that happen exactly once",
        lifespan=_lifespan,
        dependencies=[Depends(well_mannered)],
        # With a slash at its end a path is another one; a redirect would lose the body's owner to a proxy's logs.
        redirect_slashes=False,
        # The pages behind these load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # Its log records would hold the bodies of refused requests; spans come with our own tracing.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.draining = False
    app.state.waiters = 0
    for door in (accepting, batch, effects, operations, outbox, health, webhooks):
        app.include_router(door.router)
    app.add_api_route("/problems/{code}", _problem_page, include_in_schema=False)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(CounterfoilError, _error)
    app.add_exception_handler(HTTPException, _status)
    app.add_exception_handler(RequestValidationError, _parameters)
    # The last one added is the outermost: each request is named and counted before anything else.
    app.add_middleware(Methods)
    app.add_middleware(Admission, waiting_max=waiting_max)
    app.add_middleware(Arrival)
    openapi.complete(app, keys=settings.api_auth == "keys")
    return app


def refuse_open_door(settings: Settings) -> None:
    """Without keys, whoever reaches the API can charge; so by default only this machine reaches it."""
    if settings.api_auth == "keys" or settings.api_host.startswith(_LOOPBACK) or settings.api_open:
        return
    raise SettingsError(
        f"COUNTERFOIL_API_HOST={settings.api_host} lets other machines call the API, which asks nobody for a key: "
        "set COUNTERFOIL_API_AUTH=keys, use 127.0.0.1, or set COUNTERFOIL_API_OPEN=true behind a gateway of your own",
        field="COUNTERFOIL_API_HOST",
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    # More threads than connections would wait for one and then fail with a time-out of the pool. Some are left for
    # probes: a process that is busy is not one that should be taken out of service.
    anyio.to_thread.current_default_thread_limiter().total_tokens = POOL_SIZE + POOL_OVERFLOW - health.PROBES_MAX
    app.state.probes = anyio.CapacityLimiter(health.PROBES_MAX)
    yield


def _problem_page(code: str) -> PlainTextResponse:
    return problems.page(code)


def _answer(request: Request, problem: Problem) -> JSONResponse:
    if problem.code == "method_not_allowed" and (allowed := allow(request.app, request.scope)):
        problem.headers["Allow"] = allowed
    return problems.answer(problem, request_id=getattr(request.state, "request_id", None))


async def _problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this type
    return _answer(request, error)


async def _error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CounterfoilError)  # noqa: S101 - registered for this type
    return _answer(request, problems.of_error(error))


async def _status(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    return _answer(request, problems.of_status(error.status_code))


async def _parameters(request: Request, error: Exception) -> JSONResponse:
    """A query parameter is wrong. Its name and the rule are told, its value is not."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    found = [(str(item["loc"][-1]), item["msg"].removeprefix("Value error, ")) for item in error.errors()]
    errors = [{"field": field, "detail": f"{field}: {text}"} for field, text in found]
    field, text = found[0]
    return _answer(request, Problem("invalid_request", f"{field}: {text}", field=field, errors=errors))
