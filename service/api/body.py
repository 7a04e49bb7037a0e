"""The body: one JSON object of modest size, read before anything else looks at it, and never echoed.

Not left to the framework, whose validation errors carry the input: a card number sent by mistake would travel back
in the answer and into the client's logs (PCI DSS).
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, NoReturn, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Request
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from starlette.requests import ClientDisconnect

from service.api.problem_types import TYPES
from service.api.problems import Problem, of_status
from service.core.card import refuse_card_numbers
from service.core.errors import ValidationError
from tasks.rules import sentence

M = TypeVar("M", bound=BaseModel)

BYTES_MAX = 512 * 1024  # a letter's text and html at their limits and some room; far below what parsing would hurt
DEPTH_MAX = 8  # a charge is two levels deep
# A body that trickles holds a place that others wait for. The largest one arrives within seconds on any office line.
ARRIVES_WITHIN_SECONDS = 30.0
_IN_A_THREAD_BYTES = 64 * 1024  # parsing more than this would keep the event loop from everybody else


async def json_object(request: Request, *, bytes_max: int = BYTES_MAX, depth_max: int = DEPTH_MAX) -> dict[str, Any]:
    """The body as a dict. Raises Problem."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem("unsupported_media_type", "send Content-Type: application/json", field="Content-Type")
    raw = await read(request, bytes_max=bytes_max)
    if len(raw) > _IN_A_THREAD_BYTES:
        return await run_sync(partial(parse, raw, depth_max=depth_max))
    return parse(raw, depth_max=depth_max)


async def model(request: Request, kind: type[M], *, optional: bool = False) -> M:
    """The body as one of our models. `optional`: none at all is an empty one. Raises Problem, ValidationError."""
    given = not optional or request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    body = await json_object(request) if given else {}
    try:
        return kind.model_validate(body)
    except PydanticError as error:
        raise sentence(error) from None


async def read(request: Request, *, bytes_max: int = BYTES_MAX) -> bytes:
    """The body's raw bytes, up to the limit. Raises Problem."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem("unsupported_media_type", "send the body as it is, not compressed", field="Content-Encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > bytes_max:
        raise of_status(413)
    body = bytearray()
    try:
        with anyio.fail_after(ARRIVES_WITHIN_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > bytes_max:
                    raise of_status(413)
    except TimeoutError:
        raise Problem("request_timeout", TYPES["request_timeout"].text) from None
    except ClientDisconnect:
        raise Problem("request_timeout", "the connection ended before the body did") from None
    return bytes(body)


def parse(body: bytes, *, depth_max: int = DEPTH_MAX) -> dict[str, Any]:
    """Strict JSON (RFC 8259): no duplicate names, no NaN, no text that Postgres could not keep. Raises Problem."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_not_json)
    except Problem:
        raise
    except UnicodeDecodeError:
        raise Problem("invalid_json", "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        # Its message names a place and what was expected there, never the text itself.
        raise Problem("invalid_json", f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Problem("invalid_json", "the body holds a number or a nesting beyond reason") from None
    if not isinstance(value, dict):
        raise Problem("invalid_json", "the body must be one JSON object")
    if _deeper(value, depth_max):
        raise Problem("invalid_json", f"the body is nested deeper than {depth_max} levels")
    try:
        refuse_card_numbers(value, field="body")
    except ValidationError as error:
        raise Problem("invalid_request", error.message, field=(error.field or "").removeprefix("body.")) from None
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Whether it is nested deeper; refuses text that Postgres could not keep on the way."""
    if depth == 0:
        return True
    if isinstance(value, str):
        if "\x00" in value or not _encodable(value):
            raise Problem("invalid_json", "a text in the body holds NUL or half a surrogate pair")
        return False
    if isinstance(value, dict):
        return any(_deeper(name, depth) or _deeper(item, depth - 1) for name, item in value.items())
    return isinstance(value, list) and any(_deeper(item, depth - 1) for item in value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two amounts in one body: whichever we took, somebody else would have read the other.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem("invalid_json", "a name stands twice in one object of the body")
    return found


def _not_json(_: str) -> NoReturn:
    raise Problem("invalid_json", "NaN and Infinity are not JSON")
