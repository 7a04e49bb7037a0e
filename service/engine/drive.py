"""Drive: the relay carries out running operations, a batch at a time, at their pace and as long as they go well.

Each batch is one commit: effects, outbox, journal and the plan's own items change together or not at all, so a relay
that is killed anywhere leaves an operation that another one goes on with. Any number of relays may try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from service.store import operations
from service.store.database import SchemaRefused, transaction

# So long an effect may take until it rests after its replay; then it counts as it stands, and an operation can end.
PATIENCE_SECONDS = 900.0
BURST_SECONDS = 1.0  # what a paced operation may catch up on at once

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Driven:
    """What one `run_once` did: effects that were dealt with, in so many operations."""

    effects: int = 0
    operations: int = 0


def run_once() -> Driven:
    """Look after each running operation once. Raises DependencyUnavailable."""
    dealt, seen = 0, list[str]()
    while True:
        try:
            with transaction() as connection:
                held = operations.hold(connection, seen)
                if held is None:
                    return Driven(dealt, len(seen))
                seen.append(held["id"])
                dealt += _drive(connection, held)
        except SchemaRefused as error:
            _refused(seen[-1], error)


def _refused(id_: str, error: Exception) -> None:
    """A contradiction that the schema has refused, nothing written: that operation ends, and the relay goes on."""
    with transaction() as connection:
        operations.finish(connection, id_, "stopped", f"the database refused a step of it ({type(error).__name__})")
    log.error("operation_refused", operation=id_, error=str(error).partition("\n")[0][:500])


def _drive(connection: Any, held: Mapping[str, Any]) -> int:
    now = operations.standing(connection, held["id"], canary=held["canary"], patience_seconds=PATIENCE_SECONDS)
    if (reason := _goes_badly(held, now)) is not None:
        return _end(connection, held, "stopped", reason)
    if not now["waiting"]:
        if now["under_way"]:
            operations.beat(connection, held["id"], done=now["done"], anew=False)
            return 0
        return _end(connection, held, "done", None)
    limit, anew = _allowed(held, now)
    operations.beat(connection, held["id"], done=now["done"], anew=anew)
    tried, done = operations.do(connection, held, limit=limit) if limit else (0, 0)
    if tried:
        log.info("operation_driven", operation=held["id"], verb=held["verb"], done=done, skipped=tried - done)
    return tried


def _end(connection: Any, held: Mapping[str, Any], state: str, reason: str | None) -> int:
    operations.finish(connection, held["id"], state, reason)
    level = log.warning if state == "stopped" else log.info
    level("operation_ended", operation=held["id"], verb=held["verb"], state=state, reason=reason)
    return 0


def _goes_badly(held: Mapping[str, Any], now: Mapping[str, int]) -> str | None:
    if held["verb"] != "replay":
        return None
    if now["canary_failures"]:
        return f"{now['canary_failures']} of the first {held['canary']} did not succeed"
    most = held["failures_max"]
    if most is not None and now["failures"] > most:
        return f"{now['failures']} have failed or are stuck again; at most {most} were allowed"
    return None


def _allowed(held: Mapping[str, Any], now: Mapping[str, int]) -> tuple[int, bool]:
    """How many effects may be touched now, and whether the pace is to be counted anew from here."""
    limit = int(held["batch"])
    if held["verb"] == "replay" and held["canary"]:
        if now["canary_waiting"]:
            limit = min(limit, now["canary_waiting"])
        elif now["canary_under_way"]:
            return 0, True
    if held["per_second"] is None:
        return limit, False
    owed = held["per_second"] * held["paced_seconds"] - (now["done"] - held["paced_from"])
    most = max(1.0, held["per_second"] * BURST_SECONDS)
    if owed > most:  # nobody was there, or it was paused: that time is not made up for
        return min(limit, int(most)), True
    return max(0, min(limit, int(owed))), False
