"""The rules of a call: what each option may be, and what to say when it is not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError as PydanticError

from service import settings
from service.core.errors import NotExactlyOnce, ValidationError
from service.core.keys import check_name

# Moments at the ends of the calendar leave it when they are moved to another time zone, and could never be read back.
_YEAR_MIN, _YEAR_MAX = 2000, 2200

# A caller corrects a handful at a time; names of unknown fields are the caller's own words and may be of any length.
_FOUND_MAX = 20
_FIELD_LENGTH_MAX = 100

# Celery hands these along for its own bookkeeping (groups, signatures); they mean nothing to an effect.
_BOOKKEEPING = frozenset(
    {
        "task_id",
        "producer",
        "add_to_parent",
        "group_id",
        "group_index",
        "root_id",
        "parent_id",
        "reply_to",
        "chord",
        "link",
        "link_error",
        "chain",
        "shadow",
        "ignore_result",
    }
)
_FOLLOW_UP = (
    "{name} cannot carry {option}: a callback would run on a message, and messages get lost and doubled. "
    "Accept the next effect in the same transaction, or when you see this one succeeded"
)


def refuse_options(task: str, options: Mapping[str, Any]) -> None:
    """Raises NotExactlyOnce for what Celery would do on a message, ValidationError for what the outbox owns."""
    for option in ("link", "link_error", "chain", "chord"):
        if options.get(option):
            raise NotExactlyOnce(_FOLLOW_UP.format(name=task, option=option), field=option)
    unknown = sorted(set(options) - _BOOKKEEPING)
    if unknown:
        raise ValidationError(
            f"{task}.apply_async does not take {unknown[0]!r}: times, retries and routes of an effect "
            "belong to the outbox (eta, countdown, priority, queue, tenant)",
            field=unknown[0],
        )


def lane(name: object) -> str:
    """The queue's name. Raises ValidationError unless it is one that exists: a typo must not make a new one."""
    checked = check_name(name, field="queue")
    lanes = settings.load().lane_names
    if checked not in lanes:
        raise ValidationError(
            f"queue {checked!r} is not a lane; COUNTERFOIL_LANES names {', '.join(lanes)}; a worker must serve it (-Q)",
            field="queue",
        )
    return checked


def priority(value: object) -> int:
    """0 to 9, 9 first; None is 0. Raises ValidationError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise ValidationError(
            f"priority must be an integer from 0 to 9 (9 goes first), not {value!r}", field="priority"
        )
    return value


def after_seconds(countdown: object) -> float | None:
    """How long after its acceptance the effect may be executed; whose clock that is, the store decides.

    Raises ValidationError.
    """
    if countdown is None:
        return None
    if isinstance(countdown, bool) or not isinstance(countdown, int | float) or not 0 <= countdown <= 366 * 86400:
        raise ValidationError("countdown must be seconds from 0 to a year", field="countdown")
    return float(countdown)


def not_before(eta: object, countdown: object) -> datetime | None:
    """The moment that the caller has named, if any. Raises ValidationError."""
    if eta is not None and countdown is not None:
        raise ValidationError("pass eta or countdown, not both", field="eta")
    if eta is None:
        return None
    if not isinstance(eta, datetime) or eta.tzinfo is None:
        raise ValidationError("eta must be a datetime with a time zone (datetime.now(UTC) + …)", field="eta")
    if not _YEAR_MIN <= eta.year < _YEAR_MAX:
        raise ValidationError(f"eta must lie in the years {_YEAR_MIN} to {_YEAR_MAX - 1}", field="eta")
    return eta


def synchronous(session: Any) -> Any:
    """The session, if it can be joined from here. Raises ValidationError that says how an asynchronous one is."""
    if hasattr(session, "run_sync"):
        raise ValidationError(
            "session is asynchronous; write: await session.run_sync(lambda s: charge.apply_many(…, session=s))",
            field="session",
        )
    if not hasattr(session, "execute"):
        raise ValidationError(
            f"session must be a SQLAlchemy Session or Connection, not {type(session).__name__}", field="session"
        )
    return session


def sentence(error: PydanticError) -> ValidationError:
    """The first thing that is wrong with a request, in one sentence that never quotes it; `found` has them all."""
    found = [_sentence(item) for item in error.errors(include_input=False, include_url=False)[:_FOUND_MAX]]
    found[0].found = tuple((one.field or "kwargs", one.message) for one in found)
    return found[0]


def _sentence(item: Mapping[str, Any]) -> ValidationError:
    if isinstance(ours := item.get("ctx", {}).get("error"), ValidationError):
        return ours  # it knows its field; pydantic knows only where the validator hangs
    field = ".".join(str(part) for part in item["loc"])[:_FIELD_LENGTH_MAX] or "kwargs"
    message = item["msg"].removeprefix("Value error, ")
    return ValidationError(message if message.startswith(field) else f"{field}: {message}", field=field)
