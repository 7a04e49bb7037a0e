"""`POST /v1/batch`: up to 1,000 effects in one request and one transaction, each with its own key.

Item by item what can be accepted is, and the others are told apart by their index; with `atomic` it is all or nothing.
A batch whose answer got lost is sent again as it was: each key finds its effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request

from service.api import openapi
from service.api.accepting import EXAMPLES
from service.api.access import Caller, require
from service.api.body import json_object
from service.api.problem_types import TYPES
from service.api.problems import Problem, document, of_error
from service.api.submission import TASKS, check_scope, order_of
from service.api.views import Batch, BatchItem
from service.core.effect import Accepted, Order
from service.core.errors import DedupeConflict, NotExactlyOnce, ValidationError
from service.core.keys import DEDUPE_KEY_LENGTH_MAX, check_dedupe_key
from service.engine.accept import accept_alone, accept_each, misfits
from tasks.kinds import task_of

router = APIRouter(prefix="/v1")

ITEMS_MAX = 1_000
BYTES_MAX = 8 * 1024 * 1024  # a thousand letters of 8 KiB; parsing more would take seconds
_DEPTH_MAX = 11  # an item's request stands three levels down
_MEMBERS = frozenset({"kind", "idempotency_key", "request", "options"})


@dataclass(slots=True)
class _Sorted:
    """The items of a batch: orders by index, and what is wrong with the others."""

    orders: dict[int, Order] = field(default_factory=dict)
    refused: dict[int, Problem] = field(default_factory=dict)


def _item_schema(kind: str) -> dict[str, Any]:
    key = {
        "type": "string",
        "minLength": 1,
        "maxLength": DEDUPE_KEY_LENGTH_MAX,
        "pattern": "^[!-~]+$",
        "format": "dedupe-key",
    }
    return {
        "type": "object",
        "title": kind,
        "required": ["kind", "idempotency_key", "request"],
        "additionalProperties": False,
        "properties": {
            "kind": {"const": kind},
            "idempotency_key": key,
            "request": openapi.request_schema(TASKS[kind]),
            "options": {"$ref": "#/components/schemas/Options"},
        },
    }


def _documented() -> dict[str, Any]:
    items = [_item_schema(kind) for kind in TASKS]
    schema = {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {
            "items": {"type": "array", "minItems": 1, "maxItems": ITEMS_MAX, "items": {"oneOf": items}},
            "atomic": {"type": "boolean", "default": False, "description": "all or nothing"},
        },
    }
    two = [
        {"kind": "charge", "idempotency_key": "order:17:charge", "request": dict(EXAMPLES["charge"])},
        {"kind": "email", "idempotency_key": "user:7:welcome", "request": dict(EXAMPLES["email"])},
    ]
    both = {"summary": "a charge and a letter, both or neither", "value": {"atomic": True, "items": two}}
    return {"parameters": [openapi.REQUEST_ID_PARAMETER], "requestBody": openapi.body(schema, {"both": both})}


@router.post(
    "/batch",
    operation_id="create_batch",
    summary="Accept up to 1,000 effects",
    tags=["effects"],
    responses={
        200: {
            "description": "One result for each item, in their order; with `atomic` all of them were accepted",
            "headers": openapi.ANSWER_HEADERS,
        },
        **openapi.problems(408, 413, 415, 422),
    },
    openapi_extra=_documented(),
    response_model_exclude_none=True,
)
async def batch(request: Request, caller: Annotated[Caller, Depends(require(None))]) -> Batch:
    """Each item needs the scope of its kind. Items of one batch cannot name each other's effects."""
    body = await json_object(request, bytes_max=BYTES_MAX, depth_max=_DEPTH_MAX)
    items, atomic = _opened(body)
    return await run_sync(partial(_accept, items, caller, atomic=atomic))


def _opened(body: Mapping[str, Any]) -> tuple[list[Any], bool]:
    items, atomic = body.get("items"), body.get("atomic", False)
    if set(body) - {"items", "atomic"}:
        raise _wrong("a member of the body is not known; there are items, atomic", "body")
    if not isinstance(items, list) or not items:
        raise _wrong("items must be a list of at least one item", "items")
    if len(items) > ITEMS_MAX:
        raise _wrong(f"items: {len(items)} are too many; the limit is {ITEMS_MAX}", "items")
    if not isinstance(atomic, bool):
        raise _wrong("atomic must be true or false", "atomic")
    return items, atomic


def _accept(items: Sequence[Any], caller: Caller, *, atomic: bool) -> Batch:
    found = _sort(items, caller)
    if not atomic:
        answers = accept_each(list(found.orders.values()), actor=caller.actor) if found.orders else []
        for index, answer in zip(list(found.orders), answers, strict=True):
            if not isinstance(answer, Accepted):
                found.refused[index] = _of_books(answer)
        accepted = {i: a for i, a in zip(found.orders, answers, strict=True) if isinstance(a, Accepted)}
        return _answer(items, accepted, found.refused)
    if found.refused:
        raise _none(found.refused)
    return _answer(items, _all(found.orders, caller), {})


def _all(orders: Mapping[int, Order], caller: Caller) -> dict[int, Accepted]:
    try:
        answers = accept_alone(list(orders.values()), actor=caller.actor)
    except (ValidationError, DedupeConflict):
        # Who it was is asked only now. Nothing was written, and by now it may fit: then the caller's repeat will.
        raise _together("batch_conflict", _misfits(orders)) from None
    return dict(zip(orders, answers, strict=True))


def _misfits(orders: Mapping[int, Order]) -> dict[int, Problem]:
    return {
        index: _of_books(error)
        for index, error in zip(orders, misfits(list(orders.values())), strict=True)
        if error is not None
    }


def _sort(items: Sequence[Any], caller: Caller) -> _Sorted:
    found = _Sorted()
    first: dict[tuple[str, str], int] = {}
    for index, item in enumerate(items):
        try:
            order = _order(item, caller)
            earlier = first.setdefault((order.kind, order.dedupe_key), index)
            if earlier == index:
                found.orders[index] = order
            else:
                found.refused[index] = Problem(
                    "idempotency_key_repeated", f"the key of item {earlier} again", field="idempotency_key"
                )
        except Problem as problem:
            found.refused[index] = problem
        except (ValidationError, NotExactlyOnce) as error:
            found.refused[index] = of_error(error)
    return found


def _order(item: Any, caller: Caller) -> Order:
    if not isinstance(item, dict):
        raise _wrong("an item must be an object", None)
    if set(item) - _MEMBERS:
        raise _wrong(f"a member of the item is not known; there are {', '.join(sorted(_MEMBERS))}", None)
    kind, request = item.get("kind"), item.get("request")
    if not isinstance(kind, str) or kind not in TASKS:
        raise _wrong(f"kind must be one of {', '.join(TASKS)}", "kind")
    check_scope(caller, kind)
    if not isinstance(request, dict):
        raise _wrong("request must be an object", "request")
    if "options" in item and not isinstance(item["options"], dict):
        raise _wrong("options must be an object", "options")
    return order_of(task_of(kind), request, item.get("options"), key=_key(item), caller=caller)


def _key(item: Mapping[str, Any]) -> str:
    if "idempotency_key" not in item:
        raise Problem("idempotency_key_missing", "idempotency_key names the effect, for ever", field="idempotency_key")
    try:
        return check_dedupe_key(item["idempotency_key"])
    except ValidationError as error:
        detail = error.message.replace("dedupe_key", "idempotency_key")
        raise Problem("idempotency_key_invalid", detail, field="idempotency_key") from None


def _of_books(error: ValidationError | DedupeConflict) -> Problem:
    if isinstance(error, DedupeConflict):
        detail = f"the key was used before with another request; it names the effect {error.effect_id}"
        return Problem("dedupe_conflict", detail, field="idempotency_key", effect_id=error.effect_id)
    return Problem("charge_unfit", error.message, field=error.field)


def _none(refused: Mapping[int, Problem]) -> Problem:
    """All or nothing: nothing. What the key may not do is answered as to a single request: the body may be right."""
    forbidden = next((problem for problem in refused.values() if problem.code == "forbidden"), None)
    if forbidden is None:
        return _together("batch_refused", refused)
    return _together("forbidden", refused, forbidden.headers)


def _together(code: str, refused: Mapping[int, Problem], headers: Mapping[str, str] | None = None) -> Problem:
    errors = [
        {
            "index": index,
            "code": problem.code,
            "detail": problem.detail,
            **{name: problem.members[name] for name in ("field", "effect_id") if problem.members.get(name)},
        }
        for index, problem in sorted(refused.items())
    ]
    named = ", ".join(str(index) for index in sorted(refused)[:10])
    return Problem(
        code, f"nothing was written; {len(refused)} items do not pass: {named}", headers=headers, errors=errors
    )


def _answer(items: Sequence[Any], accepted: Mapping[int, Accepted], refused: Mapping[int, Problem]) -> Batch:
    results = [
        _taken(index, items[index]["kind"], accepted[index]) if index in accepted else _refused(index, refused[index])
        for index in range(len(items))
    ]
    created = sum(answer.created for answer in accepted.values())
    return Batch(created=created, replayed=len(accepted) - created, refused=len(refused), results=results)


def _taken(index: int, kind: str, answer: Accepted) -> BatchItem:
    return BatchItem(index=index, status=202, id=answer.id, kind=kind, state=answer.state, created=answer.created)


def _refused(index: int, problem: Problem) -> BatchItem:
    return BatchItem.model_validate(
        {"index": index, "status": TYPES[problem.code].status, "problem": document(problem)}
    )


def _wrong(detail: str, name: str | None) -> Problem:
    return Problem("invalid_request", detail, field=name)
