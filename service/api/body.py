"""The body: one JSON object of modest size, read before anything else looks at it, and never echoed.

Not left to the framework, whose validation errors carry the input: a card number sent by mistake would travel back
in the answer and into the client's logs (PCI DSS).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request

from service.api.problems import Problem, of_status
from service.core.card import refuse_card_numbers
from service.core.errors import ValidationError

BYTES_MAX = 512 * 1024  # a letter's text and html at their limits and some room; far below what parsing would hurt
DEPTH_MAX = 8  # a charge is two levels deep


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a dict. Raises Problem."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Problem("unsupported_media_type", "send Content-Type: application/json", field="Content-Type")
    return parse(await read(request))


async def read(request: Request) -> bytes:
    """The body's raw bytes, up to the limit. Raises Problem."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > BYTES_MAX:
        raise of_status(413)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BYTES_MAX:
            raise of_status(413)
    return bytes(body)


def parse(body: bytes) -> dict[str, Any]:
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
    _check(value, DEPTH_MAX)
    try:
        refuse_card_numbers(value, field="body")
    except ValidationError as error:
        raise Problem("invalid_request", error.message, field=(error.field or "").removeprefix("body.")) from None
    return value


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise Problem("invalid_json", f"the body is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise Problem("invalid_json", "a text in the body holds NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check(name, depth)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two amounts in one body: whichever we took, somebody else would have read the other.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Problem("invalid_json", "a name stands twice in one object of the body")
    return found


def _not_json(_: str) -> NoReturn:
    raise Problem("invalid_json", "NaN and Infinity are not JSON")
