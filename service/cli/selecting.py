"""The selectors of the replay tool, as words on a command line: the same for replay, park and unpark."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from service.cli import exits, talk
from service.cli.ground import effect_id
from service.core.errors import ValidationError
from service.core.operation import Selection

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"([0-9]+)([smhdw])\Z")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([smh]))?\Z")

Ids = Annotated[list[str] | None, typer.Option("--id", help="An effect's id; repeatable; - reads stdin.")]
State = Annotated[str | None, typer.Option(help="parked, unknown, or stuck: both, and what is long overdue.")]
Kind = Annotated[str | None, typer.Option(help="charge, refund, capture, cancel or email.")]
Lane = Annotated[str | None, typer.Option(help="Of this Celery queue.")]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant.")]
OlderThan = Annotated[str | None, typer.Option(help="Accepted longer ago than 90s, 15m, 2h or 3d.")]
Since = Annotated[str | None, typer.Option(help="Accepted at this time (2026-11-23T02:00, UTC) or later.")]
Until = Annotated[str | None, typer.Option(help="Accepted before this time.")]
ErrorLike = Annotated[str | None, typer.Option(help="The last error or the reason of the park holds this text.")]
Group = Annotated[str | None, typer.Option(help="Of this failure group (counterfoil outbox groups).")]
KeyPrefix = Annotated[str | None, typer.Option(help="The dedupe key begins with this.")]
Ref = Annotated[str | None, typer.Option(help="The provider's own id: pi_…")]
Operation = Annotated[str | None, typer.Option(help="In the frozen set of this operation.")]
Limit = Annotated[
    int | None, typer.Option(min=1, max=10_000, help="At most this many, the oldest first. Default: 1000, or nothing.")
]


def ids(given: Sequence[str]) -> tuple[str, ...]:
    """Ids from the options, and from stdin for `-`: one a line, what follows a tab is left out."""
    if "-" not in given:
        return tuple(effect_id(one) for one in given)
    piped = [line.split("\t")[0].strip() for line in sys.stdin if line.strip()]
    found = tuple(effect_id(one) for one in [*(one for one in given if one != "-"), *piped])
    if not found:  # or the other selectors alone would choose, and more than whoever wrote the pipe has meant
        talk.say("no id came in on stdin: nothing matched")
        raise typer.Exit(exits.NOTHING_MATCHED)
    return found


def selection(
    given: Sequence[str] | None, named: Mapping[str, str | None], times: Mapping[str, str | None], *, limit: int
) -> Selection:
    """What the words describe. Raises ValidationError."""
    operation = named["operation"]
    return Selection(
        ids=ids(given or []),
        **{**named, "operation": operation_id(operation) if operation else None},
        older_than_seconds=seconds(times["older_than"], field="older-than"),
        since=moment(times["since"], field="since"),
        until=moment(times["until"], field="until"),
        limit=limit,
    )


def seconds(said: str | None, *, field: str) -> float | None:
    """90s, 15m, 2h, 3d, 1w. Raises ValidationError."""
    if said is None:
        return None
    found = _DURATION.match(said)
    if not found or len(found[1]) > 6:
        raise ValidationError(f"{field} is a number and a unit: 90s, 15m, 2h, 3d or 1w", field=field)
    return float(int(found[1]) * _UNITS[found[2]])


def moment(said: str | None, *, field: str) -> datetime | None:
    """ISO 8601; without an offset it is UTC. Raises ValidationError."""
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        raise ValidationError(f"{field} is a time like 2026-11-23T02:00 (UTC) or …+01:00", field=field) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def per_second(said: str | None) -> float | None:
    """20, 20/s, 300/m. Raises ValidationError."""
    if said is None:
        return None
    found = _RATE.match(said)
    if not found or not float(found[1]):
        raise ValidationError("rate is effects over time: 20/s, 300/m or 1000/h", field="rate")
    return float(found[1]) / _UNITS[found[2] or "s"]


def operation_id(said: str) -> str:
    """An operation's id in its one spelling. Raises ValidationError."""
    try:
        return effect_id(said)
    except ValidationError:
        raise ValidationError(
            "an operation's id is a UUID, as `counterfoil ops list` shows it", field="operation"
        ) from None
