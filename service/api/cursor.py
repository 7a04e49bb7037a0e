"""Cursors: where a list goes on, opaque and signed, so that no caller can build one or carry it to another list.

Signed with what all API processes of one database share and nobody else knows: the login in its URL. After that has
changed a cursor is refused, and its list is begun again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from service import settings
from service.api.problem_types import TYPES
from service.api.problems import Problem

_MARK_BYTES = 16  # 128 bits: nobody guesses one
LENGTH_MAX = 512  # a key of 255 characters, its signature, and base64


def seal(place: str, of: Mapping[str, Any]) -> str:
    """The cursor of `place` in the list that `of` describes: its tenant and filters."""
    return base64.urlsafe_b64encode(_mark(place, of) + place.encode()).decode().rstrip("=")


def unseal(cursor: str, of: Mapping[str, Any]) -> str:
    """The place in this very list. Raises Problem."""
    if len(cursor) > LENGTH_MAX:
        raise _refused()
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = raw[_MARK_BYTES:].decode("ascii")
    except (binascii.Error, UnicodeError):
        raise _refused() from None
    if not hmac.compare_digest(raw[:_MARK_BYTES], _mark(place, of)):
        raise _refused()
    return place


def _mark(place: str, of: Mapping[str, Any]) -> bytes:
    said = json.dumps([place, sorted((name, str(value)) for name, value in of.items())]).encode()
    return hmac.digest(_key(settings.load().database()), said, "sha256")[:_MARK_BYTES]


@cache
def _key(url: str) -> bytes:
    parts = urlsplit(url)
    login = (parts.username, parts.password, parts.path)  # not the host: each process may have a pooler of its own
    return hashlib.sha256(f"counterfoil cursor {login}".encode()).digest()


def _refused() -> Problem:
    return Problem("invalid_cursor", TYPES["invalid_cursor"].text, field="cursor")
