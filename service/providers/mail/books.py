"""A mail provider's own list of what it accepted, from a file or a URL: SMTP and Resend cannot be asked for one.

Three spellings: JSON lines, CSV with a header, or one JSON document `{"mail": [...]}`. A copy names its effect by
`effect_id`, by our idempotency key (`<id>:send`) or by our Message-ID (`<id@domain>`), and has a `recipient` and a time
`at` (ISO 8601 or unix seconds). Copies that name no effect of ours are somebody else's mail and are left out.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.error import URLError
from urllib.request import urlopen

from service.core.errors import DependencyUnavailable, ValidationError

BATCH = 500
URL_SECONDS = 60.0

_EFFECT = re.compile(r"<?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:[:@].*)?\Z", re.IGNORECASE | re.DOTALL)


class Letter(NamedTuple):
    """One accepted copy, for one recipient."""

    id: str
    created: datetime
    effect: str
    recipient: str


def letters(source: str) -> Iterator[list[Letter]]:
    """The copies in `source`, a path or an http(s) URL, in batches. Raises ValidationError naming the line."""
    with _opened(source) as stream:
        numbered = ((number, thing) for number, thing in enumerate(_things(stream), 1))
        named = (letter for number, thing in numbered if (letter := _letter(number, thing)) is not None)
        while batch := list(itertools.islice(named, BATCH)):
            yield batch


@contextmanager
def _opened(source: str) -> Iterator[TextIO]:
    try:
        if source.startswith(("http://", "https://")):
            with urlopen(source, timeout=URL_SECONDS) as answer, TextIOWrapper(answer, encoding="utf-8") as stream:  # noqa: S310 - http only
                yield stream
        else:
            with Path(source).open(encoding="utf-8", newline="") as stream:
                yield stream
    except (URLError, TimeoutError) as error:
        raise DependencyUnavailable(f"the mail ledger does not answer: {getattr(error, 'reason', error)}") from None
    except OSError as error:
        raise ValidationError(f"the mail ledger cannot be read: {error.strerror}", field="mail_ledger") from None
    except UnicodeDecodeError:
        raise ValidationError("the mail ledger is not UTF-8 text", field="mail_ledger") from None


def _things(stream: TextIO) -> Iterator[Mapping[str, Any]]:
    """One mapping a copy, whichever spelling it is; only the single document is read as a whole."""
    first = next((line for line in stream if line.strip()), "")
    if not first.lstrip().startswith("{"):
        yield from csv.DictReader(itertools.chain([first], stream))
        return
    line = _json(first)
    if isinstance(line, dict) and "mail" not in line:
        yield line
        yield from (_object(one) for one in stream if one.strip())
        return
    document = line if line is not None else _json(first + stream.read())
    copies = document.get("mail") if isinstance(document, dict) else None
    if not isinstance(copies, list):
        raise ValidationError('the mail ledger is neither lines nor {"mail": [...]}', field="mail_ledger")
    yield from (copy if isinstance(copy, dict) else {} for copy in copies)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _object(line: str) -> Mapping[str, Any]:
    found = _json(line)
    return found if isinstance(found, dict) else {}


def _letter(number: int, thing: Mapping[str, Any]) -> Letter | None:
    effect = _effect(thing.get(name) for name in ("effect_id", "idempotency_key", "message_id"))
    if effect is None:
        return None
    recipient, at = thing.get("recipient"), _time(thing.get("at"))
    if not isinstance(recipient, str) or not recipient or at is None:
        raise ValidationError(f"copy {number} of the mail ledger lacks a recipient or a time", field="mail_ledger")
    return Letter(str(thing.get("id") or number), at, effect, recipient.strip().lower())


def _effect(names: Iterable[Any]) -> str | None:
    for name in names:
        found = _EFFECT.match(name.strip()) if isinstance(name, str) else None
        if found:
            return found.group(1).lower()
    return None


def _time(value: Any) -> datetime | None:
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            found = datetime.fromisoformat(value)
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        return datetime.fromtimestamp(float(value), UTC)
    except (TypeError, ValueError, OverflowError):
        return None
