"""`POST /v1/charges`, `/v1/emails` and what acts upon a charge: accept an effect, and wait for the outcome if asked to.

Accepting runs in a thread, as the store is synchronous; waiting holds no thread and no connection, so that many
callers with `Prefer: wait=30` leave the door open for others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.api import headers
from service.api.body import json_object
from service.api.problems import MEDIA_TYPE, Problem, ProblemDocument, of_conflict
from service.api.views import Effect, Outcome
from service.core.errors import DedupeConflict, ValidationError
from service.core.state import FINAL
from tasks import cancel, capture, charge, email, refund
from tasks.effect_task import EffectTask
from tasks.result import WAIT_FIRST_SECONDS, WAIT_MAX_SECONDS, EffectResult

router = APIRouter(prefix="/v1")

_CHARGE = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "receipt_email": "ada@example.com",
    "description": "Order 17",
}
_OF_CHARGE = {"charge": "019a2f6e-0000-7000-8000-000000000017"}
_REFUND = {**_OF_CHARGE, "amount": 1200, "currency": "eur", "reason": "requested_by_customer"}
_CAPTURE = {**_OF_CHARGE, "amount": 4200, "currency": "eur"}
_CANCEL = {**_OF_CHARGE, "reason": "abandoned"}
_EMAIL = {"to": "ada@example.com", "subject": "Welcome", "text": "Hello Ada"}


def _documented(task: EffectTask, example: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI of a body and headers that we read ourselves."""
    text = {"type": "string"}
    parameters = [
        {
            "name": headers.NAME,
            "in": "header",
            "required": True,
            "schema": text,
            "description": "The name of the effect, for ever: a quoted string (RFC 8941) or a bare token",
            "example": '"order:17:charge"',
        },
        {
            "name": "Prefer",
            "in": "header",
            "schema": text,
            "description": f"Wait up to {headers.WAIT_SECONDS_MAX} seconds for the outcome (RFC 7240)",
            "example": "wait=10",
        },
        {
            "name": "X-Request-Id",
            "in": "header",
            "schema": text,
            "description": "Follows the effect into every log line",
        },
    ]
    content = {"schema": task.model.model_json_schema(), "example": dict(example)}
    return {
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "202": {"headers": {"Location": {"schema": text}, "Idempotent-Replayed": {"schema": text}}},
            **{
                str(status): {
                    "description": "Problem",
                    "content": {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
                }
                for status in (400, 413, 415, 422, 503)
            },
        },
    }


def _door(path: str, task: EffectTask, example: Mapping[str, Any]) -> None:
    async def accept(request: Request) -> JSONResponse:
        return await _accept(task, request)

    router.add_api_route(
        path,
        accept,
        methods=["POST"],
        status_code=202,
        response_model=Outcome,
        summary=(task.__doc__ or "").partition(":")[0],
        operation_id=f"create_{task.name}",
        responses={200: {"model": Outcome, "description": "Settled while you waited (Prefer: wait)"}},
        openapi_extra=_documented(task, example),
    )


async def _accept(task: EffectTask, request: Request) -> JSONResponse:
    key = headers.idempotency_key(request.headers.getlist(headers.NAME))
    kwargs = await json_object(request)
    result = await run_sync(partial(_through, task, kwargs, key))
    answer = Outcome(id=result.id, kind=task.name, state=result.state, created=bool(result.created))
    wait = headers.wait_seconds(request.headers.getlist("prefer"))
    if wait is not None:
        row = await _settled(result, wait, lambda: bool(request.app.state.draining))
        answer.state, answer.effect = row.state, row
    final = wait is not None and answer.state in FINAL
    return JSONResponse(
        answer.model_dump(mode="json", exclude_none=True),
        200 if final else 202,
        {
            "Location": f"/v1/effects/{result.id}",
            **({} if result.created else {"Idempotent-Replayed": "true"}),
            **({} if wait is None else {"Preference-Applied": f"wait={wait}"}),
        },
    )


def _through(task: EffectTask, kwargs: Mapping[str, Any], key: str) -> EffectResult:
    order = task.order(None, kwargs, dedupe_key=key)  # what is wrong with the request by itself is a 400
    try:
        return EffectResult(order.id).become(task.put(order))
    except ValidationError as error:
        raise Problem("charge_unfit", error.message, field=error.field) from None
    except DedupeConflict as error:
        first = EffectResult(error.effect_id)
        first.refresh()
        raise of_conflict(error, first.state.value) from None


async def _settled(result: EffectResult, seconds: int, draining: Callable[[], bool]) -> Effect:
    """How the effect stands once it is settled, the wait is over, or this process is told to stop."""
    until = anyio.current_time() + seconds
    pause = WAIT_FIRST_SECONDS
    while True:
        effect = Effect.of(await run_sync(result.refresh))
        left = until - anyio.current_time()
        if effect.final or left <= 0 or draining():
            return effect
        await anyio.sleep(min(pause, left))
        pause = min(pause * 1.5, WAIT_MAX_SECONDS)


_door("/charges", charge, _CHARGE)
_door("/emails", email, _EMAIL)
_door("/refunds", refund, _REFUND)
_door("/captures", capture, _CAPTURE)
_door("/cancels", cancel, _CANCEL)
