"""`counterfoil outbox stats`: what is not settled and why, what fails in the same way, and the one thing to do next."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from service.cli import talk
from service.cli.ground import ground

GROUPS_SHOWN = 3
LATE_SECONDS = 60.0  # what is due for so long and not taken is nobody's turn any more
STUCK_SECONDS = 300.0
GROUP_COLUMNS = ("id", "count", "kind", "state", "reason", "error_class", "error", "code", "money", "last_seen")
DRAWN_GROUP_COLUMNS = ("id", "count", "kind", "state", "reason", "error", "code", "money", "seen")
EXAMPLES = (
    "counterfoil outbox stats",
    "counterfoil outbox stats --json",
    "watch -n 5 counterfoil outbox stats",
)


def stats(as_json: talk.Json = False) -> None:
    """What is not settled yet, by cause and age; what fails in the same way; and what to do about it."""
    ground()
    found = looked()
    if as_json:
        talk.emit(found)
        return
    counts = {name: found[name] for name in ("fresh", "later", "published", "parked", "held") if found.get(name)}
    talk.record(counts or {"outbox": "empty: everything is settled"}, as_json=False)
    if found["causes"]:
        sys.stdout.write("\n")
        rows = [{**row, "oldest_for": age(row["oldest_seconds"])} for row in found["causes"]]
        talk.table(rows, ("cause", "count", "oldest_for", "oldest"), as_json=False)
    if found["groups"]:
        sys.stdout.write("\n")
        talk.table(drawn(found["groups"]), DRAWN_GROUP_COLUMNS, as_json=False)
    talk.say(found["next"])


def looked() -> dict[str, Any]:
    """Counts, causes, the largest groups of failures, paused lanes, and the next command."""
    from service.engine import groups, lanes
    from service.store import causes, outbox
    from service.store.database import statement

    with statement() as connection:
        counts = outbox.stats(connection)
        why = causes.of(connection)
    failing = [asdict(group) for group in groups.listed(limit=GROUPS_SHOWN)]
    paused = [lane.name for lane in lanes.listed() if lane.paused_at]
    held = sum(row["count"] for row in why if row["cause"] == "held in a paused lane")
    found = {**counts, "held": held, "causes": why, "groups": failing, "paused_lanes": paused}
    return {**found, "next": _next(why, failing, paused)}


def drawn(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups for the eye: amounts as words, and how long ago the last of them was seen."""
    now = datetime.now(UTC)
    return [
        {
            **group,
            "money": ", ".join(f"{amount} {currency}" for currency, amount in group["money"].items()) or None,
            "seen": age((now - group["last_seen"]).total_seconds()),
        }
        for group in groups
    ]


def age(seconds: float | None) -> str:
    """90 -> 1m 30s; for people."""
    if seconds is None:
        return "-"
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def _next(why: Sequence[Mapping[str, Any]], failing: Sequence[Mapping[str, Any]], paused: Sequence[str]) -> str:
    """What helps most: first what a person must do, then what stands still, then what is only slow."""
    ages = {row["cause"]: row["oldest_seconds"] or 0.0 for row in why}
    if "parked" in ages:
        oldest = next(row["oldest"] for row in why if row["cause"] == "parked")
        return f"find out why: counterfoil effects show {oldest}"
    late = {
        "never published": (LATE_SECONDS, "nothing publishes them: is a relay running? counterfoil doctor"),
        "published and not picked up": (LATE_SECONDS, "do workers run and serve every lane? counterfoil lanes list"),
        "unknown": (STUCK_SECONDS, "ask the provider: counterfoil effects verify --state unknown"),
    }
    for cause, (limit, sentence) in late.items():
        if ages.get(cause, 0.0) > limit:
            return sentence
    if paused:
        return f"somebody has paused {', '.join(paused)}: counterfoil lanes list"
    return "it is tried again by itself; watch it: counterfoil top" if failing else "nothing needs you"
