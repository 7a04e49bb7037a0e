"""`/v1/operations`: replay, park and unpark by plan. The verbs are the engine's; this door only speaks HTTP.

A plan freezes the set and touches nothing; a start lets the relay carry it out, with a reason. Both may be sent again
after a lost answer: a second plan is another plan that nobody starts, a second start is a 409.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import openapi
from service.api.access import Caller, require
from service.api.body import model
from service.api.moment import Moment
from service.api.operation_views import Items, Operation, Operations, Plan
from service.api.problems import Problem
from service.api.submission import TASKS
from service.core.errors import ValidationError
from service.core.operation import BATCH
from service.engine import operations
from service.engine.operations import BATCH_MAX, LIMIT_MAX, REPLAYS_MAX, Pace, Progress, Selection, Verb

ROUTE = "/v1/operations"
router = APIRouter(prefix=ROUTE, tags=["operations"])

_UUID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_TEXT = r"^[^\x00-\x1f\x7f]*$"
_Id = Annotated[str, Field(pattern=_UUID)]
_Line = Annotated[str, Field(min_length=1, max_length=200, pattern=_TEXT)]
_Reason = Annotated[
    str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]
_Key = Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Select(_Body):
    """Which effects of yours: all of what is given must fit, and something must be given. Never everything."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: schema.update(
            anyOf=[
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in schema["properties"]
                if name != "limit"
            ]
        )
    )

    ids: Annotated[list[_Id], Field(min_length=1, max_length=LIMIT_MAX)] | None = None
    state: Literal["parked", "unknown", "stuck"] | None = Field(None, description="stuck: those, or long overdue")
    kind: Literal["charge", "email", "refund", "capture", "cancel"] | None = None
    lane: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}$")] | None = None
    older_than_seconds: Annotated[float, Field(ge=0, le=100 * 366 * 86400, allow_inf_nan=False)] | None = None
    since: Moment | None = Field(None, description="accepted at or after this moment")
    until: Moment | None = Field(None, description="accepted before this moment")
    error_like: _Line | None = Field(None, description="part of the last error")
    group: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] | None = None
    key_prefix: _Key | None = None
    ref: _Key | None = Field(None, description="the provider's id")
    operation: _Id | None = Field(None, description="what another operation had in its set")
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 1000

    def selection(self, tenant: str) -> Selection:
        """As the engine takes it, for one tenant. Raises ValidationError when nothing is selected."""
        chosen = {name: value for name, value in self if value is not None}
        if not set(chosen) - {"limit"}:
            raise ValidationError("select: say which effects; there is no 'everything'", field="select")
        return Selection(**{**chosen, "ids": tuple(self.ids or ())}, tenant=tenant)


class Wanted(_Body):
    """What to plan. `force` lifts the limit of replays of one effect."""

    verb: Literal["replay", "park", "unpark"]
    select: Select
    max_replays: Annotated[int, Field(ge=1, le=1000)] = REPLAYS_MAX
    force: bool = False


class Start(_Body):
    """Why, how quickly, and when to stop. The reason stays in the journal of every effect."""

    reason: _Reason
    per_second: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    canary: Annotated[int, Field(ge=0, le=LIMIT_MAX)] = Field(0, description="so many must succeed before the others")
    failures_max: Annotated[int, Field(ge=0, le=LIMIT_MAX)] | None = None
    batch: Annotated[int, Field(ge=1, le=BATCH_MAX)] = Field(BATCH, description="effects of one commit")


class Turn(_Body):
    """Why; may be left out."""

    reason: _Reason | None = None


Reader = Annotated[Caller, Depends(require("operations:read"))]
Writer = Annotated[Caller, Depends(require("operations:write"))]
Id = Annotated[str, Path(max_length=64, description="the operation's id")]
_VERBS = ("start", "pause", "resume", "cancel")
_NEXT = openapi.links_to("operation_id", "get_operation", "list_items", *(f"{verb}_operation" for verb in _VERBS))
_EXAMPLE = {"verb": "replay", "select": {"state": "parked", "kind": "charge", "older_than_seconds": 600}}


def _body(kind: type[BaseModel], example: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    schema = openapi.schema_of(kind)
    return {"requestBody": {**openapi.body(schema, {"one": {"value": dict(example)}}), "required": required}}


@router.post(
    "",
    status_code=201,
    operation_id="plan_operation",
    responses={201: {"headers": openapi.headers_of("Location"), "links": _NEXT}, **openapi.problems(408, 413, 415)},
    openapi_extra=_body(Wanted, _EXAMPLE),
)
async def plan_operation(request: Request, response: Response, caller: Writer) -> Plan:
    """Freeze a set and show it; no effect is touched. Needs `operations:write`."""
    wanted = await model(request, Wanted)
    planned = await run_sync(lambda: _plan(wanted, caller))
    response.headers["Location"] = f"{ROUTE}/{planned.id}"
    return planned


def _plan(wanted: Wanted, caller: Caller) -> Plan:
    chosen = wanted.select.selection(caller.tenant)
    found = operations.plan(
        Verb(wanted.verb), chosen, actor=caller.actor, max_replays=wanted.max_replays, force=wanted.force
    )
    return Plan.of(found)


@router.get("", operation_id="list_operations", responses=openapi.shown())
def list_operations(
    caller: Reader,
    state: Literal["planned", "running", "paused", "done", "stopped", "cancelled"] | None = None,
    after: Annotated[uuid.UUID | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Operations:
    """List operations, newest first."""
    found = operations.listed(tenant=caller.tenant, state=state, after=str(after) if after else None, limit=limit)
    return Operations(operations=[Operation.of(one) for one in found])


@router.get("/{operation_id}", operation_id="get_operation", responses=openapi.shown(404))
def get_operation(operation_id: Id, caller: Reader) -> Operation:
    """Show how far an operation is, and how its effects came to rest."""
    return Operation.of(operations.show(_known(operation_id), tenant=caller.tenant))


@router.get("/{operation_id}/items", operation_id="list_items", responses=openapi.shown(404))
def list_items(
    operation_id: Id,
    caller: Reader,
    after: Annotated[int, Query(ge=0, le=LIMIT_MAX, description="the last position of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Items:
    """List the frozen set, each effect with what became of it."""
    operations.show(_known(operation_id), tenant=caller.tenant)  # whose it is
    return Items.model_validate({"items": operations.items(operation_id, after=after, limit=limit)})


@router.post(
    "/{operation_id}/start",
    operation_id="start_operation",
    responses=openapi.shown(404, 408, 409, 413, 415),
    openapi_extra=_body(Start, {"reason": "Stripe was away, INC-1234", "per_second": 5, "canary": 1}),
)
async def start_operation(operation_id: Id, request: Request, caller: Writer) -> Operation:
    """Let the relay carry out a plan: exactly the frozen set."""
    how = await model(request, Start)
    pace = Pace(how.per_second, how.canary, how.failures_max, how.batch)

    def start() -> Progress:
        return operations.start(
            _known(operation_id), reason=how.reason, actor=caller.actor, door="api", pace=pace, tenant=caller.tenant
        )

    return Operation.of(await run_sync(lambda: _turned(start)))


def _turning(name: str, verb: Callable[..., Progress], about: str) -> None:
    allowed = Depends(require("operations:write"))

    async def turn(operation_id: Id, request: Request, caller: Caller = allowed) -> Operation:
        told = await model(request, Turn, optional=True)

        def turned() -> Progress:
            return verb(_known(operation_id), actor=caller.actor, door="api", reason=told.reason, tenant=caller.tenant)

        return Operation.of(await run_sync(lambda: _turned(turned)))

    router.add_api_route(
        f"/{{operation_id}}/{name}",
        turn,
        methods=["POST"],
        operation_id=f"{name}_operation",
        summary=about,
        response_model=Operation,
        responses=openapi.shown(404, 408, 409, 413, 415),
        openapi_extra=_body(Turn, {"reason": "the first ones fail"}, required=False),
    )


_turning("pause", operations.pause, "Touch no further effect until it is resumed")
_turning("resume", operations.resume, "Go on where it was paused")
_turning("cancel", operations.cancel, "Never touch the rest")


def _turned(verb: Callable[[], Progress]) -> Progress:
    try:
        return verb()
    except ValidationError as error:
        if error.field == "operation":  # the request is well formed; the operation stands elsewhere
            raise Problem("operation_state", error.message) from None
        raise


def _known(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Problem("operation_not_found", "no operation has this id") from None


assert set(Select.model_fields) - {"limit"} <= set(Selection.__slots__)  # noqa: S101 - one vocabulary, two doors
assert set(TASKS) == {"charge", "email", "refund", "capture", "cancel"}  # noqa: S101 - `kind` above
