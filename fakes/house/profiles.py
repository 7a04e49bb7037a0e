"""How different providers treat keys, by name; the one in force can be changed through the admin port and is kept.

A service that is right in front of one profile may charge twice in front of another. What an adapter declares about
its provider (window, failures kept or not, parameters compared or not) is tested against the profile that keeps to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from fakes.house.idempotency import KeyRules
from fakes.house.mutants import MUTANTS

SCHEMA = "CREATE TABLE IF NOT EXISTS key_habits (name TEXT PRIMARY KEY, value TEXT NOT NULL);"

Orphans = Literal[
    "released",  # keys in flight when the fake died are free again
    "stored_500",  # their requests are answered 500, for good
]

PROFILES: Mapping[str, KeyRules] = {
    # Stripe docs, "Idempotent requests": 24 hours, every answer of the endpoint kept, 500s included.
    "stripe": KeyRules(),
    # The same but for 5xx, which free the key: what a provider may do that documents nothing about its own failures.
    "forgets_500": KeyRules(failures="not_500"),
    # Half an hour, and the body is not looked at.
    "half_hour_no_compare": KeyRules(retention_seconds=1800, compares_parameters=False),
    # Only 2xx is kept. A failure is executed again, even one that had its effect.
    "successes_only": KeyRules(failures="released"),
    # Stripe docs, "API v2 overview": a retry completes what had failed and repeats nothing that had succeeded.
    "rerun_failures": KeyRules(failures="rerun"),
}
DEFAULT = "stripe"


class BadHabit(ValueError):
    """The admin asked for a habit that does not exist; the message names it."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What the command line says about a fake; None leaves a choice to the admin port, which survives restarts."""

    latency_seconds: float = 0.0
    profile: str | None = None
    orphans: Orphans | None = None
    mutant: str | None = None


class KeyBook:
    """The key rules in force, read by every request."""

    def __init__(self, mutant: str | None = None) -> None:
        self.profile = DEFAULT
        self.orphans: Orphans = "released"
        self.mutant = mutant

    def rules(self, length_max: int) -> KeyRules:
        """The rules now; how long a key may be is the provider's own."""
        honest = replace(PROFILES[self.profile], length_max=length_max)
        return MUTANTS[self.mutant](honest) if self.mutant else honest

    def load(self, connection: sqlite3.Connection) -> None:
        """Go on with what an earlier life of this fake was told."""
        for row in connection.execute("SELECT name, value FROM key_habits"):
            setattr(self, row["name"], row["value"])

    def change(self, connection: sqlite3.Connection, wish: Mapping[str, Any]) -> None:
        """Turn `profile` and `orphans`, for good. Raises BadHabit."""
        known = {"profile": tuple(PROFILES), "orphans": get_args(Orphans)}
        for name, value in wish.items():
            if name == "mutant":
                raise BadHabit("a mutant is chosen with --mutant on the command line only")
            if name not in known:
                raise BadHabit(f"unknown habit {name!r}; known are {', '.join(known)}")
            if value not in known[name]:
                raise BadHabit(f"{name} is one of {', '.join(known[name])}, not {value!r}")
        for name, value in wish.items():
            connection.execute("INSERT OR REPLACE INTO key_habits VALUES (?, ?)", (name, value))
            setattr(self, name, value)

    def as_json(self) -> dict[str, str | None]:
        """What is in force, for the admin port."""
        return {"profile": self.profile, "orphans": self.orphans, "mutant": self.mutant}
