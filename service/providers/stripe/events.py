"""From the bytes of a Stripe event to the ids in it: no amount, no address, no state is read, as none is believed."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.core.event import Event

_ID = re.compile(r"[A-Za-z0-9_.-]{1,255}\Z")
_SECONDS_MAX = 253_402_300_799  # the last second of the year 9999


class NotAnEvent(Exception):
    """Signed, and not what we know as an event; the message names the field, never its value."""


def parse(body: bytes) -> Event:
    """The event's ids. Raises NotAnEvent. Objects without an id (a balance) have an empty one."""
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise NotAnEvent("the body is not JSON") from None
    if not isinstance(document, dict) or document.get("object") != "event":
        raise NotAnEvent("the body is no event")
    about = _object(document.get("data"))
    return Event(
        provider="stripe",
        id=_id(document, "id"),
        type=_id(document, "type"),
        object_id=_maybe(about.get("id")) or "",
        object_type=_maybe(about.get("object")) or "",
        effect_id=_effect(about.get("metadata")),
        payment_intent=_intent(about),
        at=_time(document.get("created")),
        livemode=document.get("livemode") is True,
    )


def _object(data: Any) -> Mapping[str, Any]:
    found = data.get("object") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _id(document: Mapping[str, Any], name: str) -> str:
    value = _maybe(document.get(name))
    if value is None:
        raise NotAnEvent(f"the event has no {name}")
    return value


def _maybe(value: Any) -> str | None:
    return value if isinstance(value, str) and _ID.match(value) else None


def _effect(metadata: Any) -> str | None:
    """An effect of ours, if the object says so in our spelling."""
    value = metadata.get("effect_id") if isinstance(metadata, dict) else None
    try:
        return str(uuid.UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _intent(about: Mapping[str, Any]) -> str | None:
    """The PaymentIntent that the object is or belongs to, which may be expanded."""
    if about.get("object") == "payment_intent":
        return _maybe(about.get("id"))
    named = about.get("payment_intent")
    return _maybe(named.get("id") if isinstance(named, dict) else named)


def _time(seconds: Any) -> datetime:
    if type(seconds) is not int or not 0 <= seconds <= _SECONDS_MAX:
        raise NotAnEvent("the event has no time of creation")
    return datetime.fromtimestamp(seconds, UTC)
