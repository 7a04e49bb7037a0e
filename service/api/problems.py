"""What goes wrong is told by RFC 9457 problems: a stable type, a machine word, one sentence, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from service.api.problem_types import TYPES
from service.core.errors import CounterfoilError, DedupeConflict, ValidationError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2  # a restart of Postgres takes about this long
DETAIL_LENGTH_MAX = 400
ERRORS_MAX = 1_000  # one for each item of the largest batch

_STATUSES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


class Error(BaseModel):
    """One thing that is wrong; `index` is the item of a batch."""

    detail: str
    field: str | None = Field(None, examples=["amount"])
    index: int | None = None
    code: str | None = Field(None, description="the problem that the item would be by itself")
    effect_id: str | None = None


class ProblemDocument(BaseModel):
    """A problem (RFC 9457). `type` is the address of its description."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["/problems/dedupe_conflict"])
    title: str
    status: int
    detail: str
    code: str = Field(examples=["dedupe_conflict"])
    retryable: bool = Field(description="the same request may be sent again as it is")
    safe_new_key: bool = Field(description="sending it under another key cannot make a second effect")
    field: str | None = Field(None, description="the body's member, the header or the parameter it speaks of")
    errors: list[Error] | None = Field(None, description="all that was found, when it is more than one sentence")
    effect_id: str | None = None
    effect_state: str | None = Field(None, description="how the effect that has the key stands")
    request_id: str | None = None


class Problem(Exception):
    """Raised at the door to answer with a problem. `headers` go beside it."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = {"field": field, "errors": list(errors[:ERRORS_MAX]) or None, **more}
        self.headers = dict(headers or {})


def of_conflict(error: DedupeConflict, state: str) -> Problem:
    """The key already stands for another request; which effect that is, and how it stands."""
    detail = f"this Idempotency-Key was used before with another request; it names the effect {error.effect_id}"
    return Problem(error.code, detail, field="Idempotency-Key", effect_id=error.effect_id, effect_state=state)


def of_error(error: CounterfoilError) -> Problem:
    """The problem an error of ours is, in the words of HTTP."""
    code = {"settings": "dependency_unavailable", "not_exactly_once": "invalid_request"}.get(error.code, error.code)
    if code not in TYPES:
        return Problem("internal_error", "the request could not be carried out")
    if code == "dependency_unavailable":
        return Problem(code, "the database does not answer; send the same request with the same key again")
    found = error.found if isinstance(error, ValidationError) else ()
    return Problem(
        code, error.message, field=error.field, errors=[{"field": field, "detail": text} for field, text in found]
    )


def of_status(status: int) -> Problem:
    """The problem a bare HTTP status of the framework is."""
    code = _STATUSES.get(status, "internal_error" if status >= 500 else "invalid_request")
    return Problem(code, TYPES[code].text)


def document(problem: Problem, *, request_id: str | None = None) -> dict[str, Any]:
    """The members of a problem in the order people read them."""
    kind = TYPES[problem.code]
    return {
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


def answer(problem: Problem, *, request_id: str | None = None) -> JSONResponse:
    """The response, with its headers."""
    status = TYPES[problem.code].status
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 §3
    return JSONResponse(document(problem, request_id=request_id), status, {**headers, **problem.headers}, MEDIA_TYPE)


def page(code: str) -> PlainTextResponse:
    """What a type's address shows. Raises Problem for an address that is none."""
    if code not in TYPES:
        raise of_status(404)
    return PlainTextResponse(words(code))


def words(code: str) -> str:
    """A kind of problem in plain sentences."""
    kind = TYPES[code]
    again = "Yes" if kind.retryable else "No"
    fresh = "Yes" if kind.safe_new_key else "No: it could happen twice"
    return (
        f"{kind.title} ({kind.status})\n\n{kind.text}\n\n"
        f"May the same request be sent again as it is? {again}.\n"
        f"May it be sent under a new key? {fresh}.\n"
    )


def catalogue() -> str:
    """All kinds of problem as docs/problems.md shows them (a test keeps the two equal)."""
    lines = [_INTRODUCTION]
    for code, kind in TYPES.items():
        again = "yes" if kind.retryable else "no"
        fresh = "yes" if kind.safe_new_key else "no"
        lines += [
            f"\n## {code}\n",
            f"**{kind.status}. {kind.title}.** {kind.text}\n",
            f"`retryable`: {again} · `safe_new_key`: {fresh}",
        ]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Problems

What the [API](http.md) answers when it cannot do what was asked (RFC 9457); each is also told at its address,
`/problems/{code}`.

`retryable`: the same request may be sent again as it is. `safe_new_key`: nothing stands under this key because of this
request, so another key cannot make a second effect."""
