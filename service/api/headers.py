"""Request headers, read strictly where money depends on them and leniently where they are wishes.

Idempotency-Key (IETF draft "The Idempotency-Key HTTP Header Field"), Prefer (RFC 7240), X-Request-Id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from uuid_utils import uuid7

from service.api.problems import Problem
from service.core.card import looks_like_card_number
from service.core.errors import ValidationError
from service.core.keys import check_dedupe_key

WAIT_SECONDS_MAX = 30  # shorter than the patience of common gateways
# RFC 8941 §3.3.3: printable ASCII in quotes, with \" and \\ as the only escapes.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"\Z')
# More than RFC 8941's token (a UUID may begin with a digit), less than what would read as a list or parameters.
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]+\Z")
_WAIT = re.compile(r'wait\s*=\s*"?([0-9]{1,9})"?\Z', re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
NAME = "Idempotency-Key"


def idempotency_key(values: Sequence[str]) -> str:
    """The dedupe key of the request. Raises Problem; never repeats what was sent, which may be a card number."""
    if not values:
        raise Problem(
            "idempotency_key_missing",
            f'{NAME} is required: send {NAME}: "order:17:charge", this effect\'s name and the same on every try',
            field=NAME,
        )
    if len(values) > 1:
        raise _malformed("was sent more than once")
    value = values[0].strip()
    quoted = _QUOTED.match(value)
    if quoted:
        key = re.sub(r"\\(.)", r"\1", quoted.group(1))
    elif _BARE.match(value):
        key = value
    else:
        raise _malformed('must be a quoted string like "order:17:charge" or a bare token')
    try:
        return check_dedupe_key(key)
    except ValidationError as error:
        raise _malformed(_reason(key, error)) from None


def _reason(key: str, error: ValidationError) -> str:
    return "is empty" if not key else error.message.removeprefix("dedupe_key ")


def _malformed(reason: str) -> Problem:
    return Problem("idempotency_key_invalid", f"{NAME} {reason}", field=NAME)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller prefers: to wait for the outcome so long, or not at all."""

    wait: int | None = None
    at_once: bool = False

    def applied(self, *, waited: bool, final: bool) -> str:
        """Preference-Applied: what was done of it (RFC 7240 §3)."""
        done = {"respond-async": self.at_once and not final, f"wait={self.wait}": waited}
        return ", ".join(name for name, kept in done.items() if kept)


def wish(values: Sequence[str]) -> Wish:
    """How the caller would like to be answered.

    RFC 7240 §2: what is not understood is ignored, and of a repeated preference the first one counts. Both together
    (§4.1) say: wait so long, and then answer at once.
    """
    wait: int | None = None
    at_once = False
    for preference in ",".join(values).split(","):
        token = preference.partition(";")[0].strip()
        if wait is None and (found := _WAIT.match(token)):
            wait = min(int(found.group(1)), WAIT_SECONDS_MAX)
        at_once = at_once or token.lower() == "respond-async"
    return Wish(wait, at_once)


def request_id(value: str | None) -> str:
    """The caller's request id if it is harmless in a log line, else a new one."""
    if value and _REQUEST_ID.match(value) and not looks_like_card_number(value):
        return value
    return str(uuid7())
