"""The operators' log: one row for each write of a person or key that concerns no single effect, in the same commit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, text

Door = Literal["api", "cli", "console", "periodic"]

_WRITE = text("""
insert into actions (actor, door, verb, subject, reason, detail)
values (:actor, :door, :verb, :subject, :reason, cast(:detail as jsonb))
""")
_OF = text("select at, actor, door, verb, subject, reason, detail from actions where subject = :subject order by id")


def write(
    connection: Connection,
    *,
    actor: str,
    door: Door,
    verb: str,
    subject: str,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Note who did what to what, and why. `detail` holds no payload and no secret."""
    connection.execute(
        _WRITE,
        {
            "actor": actor,
            "door": door,
            "verb": verb,
            "subject": subject,
            "reason": reason,
            "detail": json.dumps(detail or {}, default=str),
        },
    )


def of(connection: Connection, subject: str) -> list[dict[str, Any]]:
    """What was done to it, oldest first."""
    return [dict(row) for row in connection.execute(_OF, {"subject": subject}).mappings()]
