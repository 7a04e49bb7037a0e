"""What goes wrong is told by RFC 9457 problems: a stable type, a machine word, one sentence, and what to do next.

`retryable`: the same request may be sent again as it is. `safe_new_key`: nothing stands under this key because of
this request, so sending it under another key cannot make a second effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from service.core.errors import CounterfoilError, DedupeConflict

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2  # a restart of Postgres takes about this long
DETAIL_LENGTH_MAX = 400


@dataclass(frozen=True, slots=True)
class Type:
    """One kind of problem; its code is the last part of its address for ever."""

    status: int
    title: str
    text: str
    retryable: bool = False
    safe_new_key: bool = True


TYPES: Mapping[str, Type] = {
    "invalid_json": Type(400, "The body is not JSON", "Send one JSON object in UTF-8, without duplicate names."),
    "invalid_request": Type(
        400,
        "The request is refused",
        "Nothing was written. `field` names what to change, `detail` says how. A status of 422 is left to mean that "
        "the request does not fit what is on the books already.",
    ),
    "idempotency_key_missing": Type(
        400,
        "Idempotency-Key is missing",
        'Name the effect: Idempotency-Key: "order:17:charge". Send the same name on every try of the same effect.',
    ),
    "idempotency_key_invalid": Type(
        400,
        "Idempotency-Key is malformed",
        "A quoted string (RFC 8941) or a bare token: 1 to 255 printable ASCII characters without spaces, once.",
    ),
    "dedupe_conflict": Type(
        422,
        "The key was used with another request",
        "The first request stands unchanged. If this one is meant to be the same effect, send the first request's "
        "body. Take a new key only if it is meant to be another effect: it will happen in addition.",
        safe_new_key=False,
    ),
    "charge_unfit": Type(
        422,
        "There is no such charge to act upon",
        "Nothing was written. `field` names what does not fit the charge on the books: its id, its currency, or more "
        "than its amount.",
    ),
    "effect_not_found": Type(404, "No such effect", "No effect has this id."),
    "not_found": Type(404, "No such page", "The paths are listed in /openapi.json."),
    "method_not_allowed": Type(405, "This method is not offered here", "The header Allow lists those that are."),
    "body_too_large": Type(413, "The body is too large", "The limit is 512 KiB."),
    "unsupported_media_type": Type(415, "Send JSON", "Content-Type: application/json, in UTF-8."),
    "webhook_refused": Type(
        400,
        "The webhook is refused",
        "Nothing was kept. Either it does not come from Stripe, or not from the endpoint and mode whose secret and key "
        "are set here; `detail` says which.",
    ),
    "webhooks_not_set_up": Type(
        503,
        "Webhooks are not set up",
        "Set COUNTERFOIL_STRIPE_WEBHOOK_SECRET and restart the API. Stripe tells each event again for three days.",
        retryable=True,
    ),
    "dependency_unavailable": Type(
        503,
        "The database does not answer",
        "The effect may or may not have been accepted. Send the same request with the same key again, after the "
        "seconds in Retry-After.",
        retryable=True,
        safe_new_key=False,
    ),
    "internal_error": Type(
        500,
        "A bug of ours",
        "The effect may or may not have been accepted. Send the same request with the same key again; if it stays, "
        "quote the request id.",
        retryable=True,
        safe_new_key=False,
    ),
}

_STATUSES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported_media_type"}


class ProblemDocument(BaseModel):
    """The members of a problem, for OpenAPI."""

    type: str = Field(examples=["/problems/dedupe_conflict"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["dedupe_conflict"])
    retryable: bool
    safe_new_key: bool
    field: str | None = None
    effect_id: str | None = None
    effect_state: str | None = None
    request_id: str | None = None


class Problem(Exception):
    """Raised at the door to answer with a problem."""

    def __init__(self, code: str, detail: str, *, field: str | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = {"field": field, **more}


def of_conflict(error: DedupeConflict, state: str) -> Problem:
    """The key already stands for another request; which effect that is, and how it stands."""
    detail = f"this Idempotency-Key was used before with another request; it names the effect {error.effect_id}"
    return Problem(error.code, detail, field="Idempotency-Key", effect_id=error.effect_id, effect_state=state)


def of_error(error: CounterfoilError) -> Problem:
    """The problem an error of ours is, in the words of HTTP."""
    code = {"settings": "dependency_unavailable"}.get(error.code, error.code)
    if code not in TYPES:
        return Problem("internal_error", "the request could not be carried out")
    if code == "dependency_unavailable":
        return Problem(code, "the database does not answer; send the same request with the same key again")
    return Problem(code, error.message, field=error.field)


def of_status(status: int) -> Problem:
    """The problem a bare HTTP status of the framework is."""
    code = _STATUSES.get(status, "internal_error" if status >= 500 else "invalid_request")
    return Problem(code, TYPES[code].text)


def answer(problem: Problem, *, request_id: str | None = None) -> JSONResponse:
    """The response; its members in the order people read them."""
    kind = TYPES[problem.code]
    document = {
        "type": f"/problems/{problem.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail[:DETAIL_LENGTH_MAX],
        "code": problem.code,
        "retryable": kind.retryable,
        "safe_new_key": kind.safe_new_key,
        **{name: value for name, value in problem.members.items() if value is not None},
        **({"request_id": request_id} if request_id else {}),
    }
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if kind.status == 503 else {}
    return JSONResponse(document, kind.status, headers, MEDIA_TYPE)


def page(code: str) -> PlainTextResponse:
    """What a type's address shows. Raises Problem for an address that is none."""
    if code not in TYPES:
        raise of_status(404)
    kind = TYPES[code]
    again = "Yes" if kind.retryable else "No"
    fresh = "Yes" if kind.safe_new_key else "No: it could happen twice"
    return PlainTextResponse(
        f"{kind.title} ({kind.status})\n\n{kind.text}\n\n"
        f"May the same request be sent again as it is? {again}.\n"
        f"May it be sent under a new key? {fresh}.\n"
    )
