"""`POST /v1/charges`, `/v1/emails` and what acts upon a charge: accept an effect, and wait for the outcome if asked to.

Accepting runs in a thread, as the store is synchronous; waiting holds no thread and no connection, so that many
callers with `Prefer: wait=30` leave the door open for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from service.api import headers, openapi
from service.api.access import Caller, require
from service.api.body import json_object
from service.api.problems import Problem, of_conflict
from service.api.submission import SCOPES, TASKS, order_of
from service.api.views import Outcome
from service.api.waiting import settled
from service.core.effect import Accepted
from service.core.errors import DedupeConflict, ValidationError
from service.core.state import FINAL
from service.engine.accept import accept_alone
from tasks.effect_task import EffectTask
from tasks.result import EffectResult

router = APIRouter(prefix="/v1")

_OF_CHARGE = {"charge": "019a2f6e-0000-7000-8000-000000000017"}
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "charge": {
        "amount": 4200,
        "currency": "eur",
        "payment_method": "pm_card_visa",
        "receipt_email": "ada@example.com",
        "description": "Order 17",
    },
    "email": {"to": "ada@example.com", "subject": "Welcome", "text": "Hello Ada"},
    "refund": {**_OF_CHARGE, "amount": 1200, "currency": "eur", "reason": "requested_by_customer"},
    "capture": {**_OF_CHARGE, "amount": 4200, "currency": "eur"},
    "cancel": {**_OF_CHARGE, "reason": "abandoned"},
}


def _documented(task: EffectTask) -> dict[str, Any]:
    """OpenAPI of a body and headers that we read ourselves."""
    example = EXAMPLES[task.name]
    later = {**example, "options": {"countdown": 3600, "priority": 5}}
    return {
        "parameters": [openapi.KEY_PARAMETER, openapi.PREFER_PARAMETER, openapi.REQUEST_ID_PARAMETER],
        "requestBody": openapi.body(
            openapi.body_schema(task),
            {
                "now": {"summary": "as soon as possible", "value": dict(example)},
                "later": {"summary": "not within the next hour, and then before others", "value": later},
            },
        ),
    }


def _door(path: str, task: EffectTask) -> None:
    allowed = Depends(require(SCOPES[task.name]))

    async def accept(request: Request, caller: Caller = allowed) -> JSONResponse:
        return await _accept(task, request, caller)

    answered = openapi.headers_of("Location", "Idempotent-Replayed", "Preference-Applied")
    told = {"headers": answered, "links": openapi.links_to("effect_id", "get_effect", "list_events")}
    responses: dict[int | str, dict[str, Any]] = {
        200: {"model": Outcome, "description": "Settled while you waited (Prefer: wait)", **told},
        202: {"description": "On the books; it goes on by itself", **told},
        **openapi.problems(408, 413, 415, 422),
    }
    router.add_api_route(
        path,
        accept,
        methods=["POST"],
        status_code=202,
        response_model=Outcome,
        summary=(task.__doc__ or "").partition(":")[0],
        description=f"Needs the scope `{SCOPES[task.name]}`. The same key and request find the same effect, for ever.",
        operation_id=f"create_{task.name}",
        tags=["effects"],
        responses=responses,
        openapi_extra=_documented(task),
    )


async def _accept(task: EffectTask, request: Request, caller: Caller) -> JSONResponse:
    key = headers.idempotency_key(request.headers.getlist(headers.NAME))
    body = await json_object(request)
    result = EffectResult("")
    result.become(await run_sync(partial(_through, task, body, key, caller)))
    answer = Outcome(id=result.id, kind=task.name, state=result.state, created=bool(result.created))
    wish = headers.wish(request.headers.getlist("prefer"))
    waited = False
    if wish.wait is not None:
        effect, waited = await settled(request.app, result, wish.wait)
        answer.state, answer.effect = effect.state, effect
    final = wish.wait is not None and answer.state in FINAL
    applied = wish.applied(waited=waited, final=final)
    return JSONResponse(
        answer.model_dump(mode="json", exclude_none=True),
        200 if final else 202,
        {
            "Location": f"/v1/effects/{result.id}",
            **({} if result.created else {"Idempotent-Replayed": "true"}),
            **({"Preference-Applied": applied} if applied else {}),
        },
    )


def _through(task: EffectTask, body: Mapping[str, Any], key: str, caller: Caller) -> Accepted:
    request = {name: value for name, value in body.items() if name != "options"}
    # What is wrong with the request by itself is a 400.
    order = order_of(task, request, body.get("options"), key=key, caller=caller)
    try:
        return accept_alone([order], actor=caller.actor)[0]
    except ValidationError as error:
        raise Problem("charge_unfit", error.message, field=error.field) from None
    except DedupeConflict as error:
        raise of_conflict(error, _state(error.effect_id)) from None


def _state(effect_id: str) -> str:
    first = EffectResult(effect_id)
    first.refresh()
    return first.state.value


for _path, _kind in (
    ("/charges", "charge"),
    ("/emails", "email"),
    ("/refunds", "refund"),
    ("/captures", "capture"),
    ("/cancels", "cancel"),
):
    _door(_path, TASKS[_kind])
