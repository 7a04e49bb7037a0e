"""Named settings of the Stripe fake, changed through the admin port and kept over a restart.

search_lag_seconds  how far the search index is behind the objects (Stripe docs, "Search": normally under a minute, up
                    to an hour during outages)
strict_accounts     whether customers and payment methods must exist. Off, any `cus_…` is a customer and any `pm_…` that
                    nobody created stands for its saved, good card, so that a service can be tried without setting up
                    an account first; whatever was created keeps to the rules either way.
refund_status       how refunds begin, whatever the card says; null leaves it to the card
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);"

SEARCH_LAG_MAX_SECONDS = 3600
REFUND_STATUSES = ("pending", "requires_action", "succeeded", "failed", "canceled")


class BadSetting(ValueError):
    """A setting that does not exist, or cannot be that; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them, with their defaults."""

    search_lag_seconds: float = 60
    strict_accounts: bool = False
    refund_status: str | None = None


def read(connection: sqlite3.Connection) -> Settings:
    """The settings as they are now."""
    return Settings(**{row["name"]: json.loads(row["value"]) for row in connection.execute("SELECT * FROM settings")})


def change(connection: sqlite3.Connection, wish: Mapping[str, Any]) -> Settings:
    """Set those that are named. Raises BadSetting."""
    for name, value in wish.items():
        _check(name, value)
        connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))
    return read(connection)


def as_json(settings: Settings) -> dict[str, Any]:
    """The settings for the admin port."""
    return asdict(settings)


def _check(name: str, value: Any) -> None:
    match name:
        case "search_lag_seconds":
            good = isinstance(value, int | float) and 0 <= value <= SEARCH_LAG_MAX_SECONDS
        case "strict_accounts":
            good = isinstance(value, bool)
        case "refund_status":
            good = value is None or value in REFUND_STATUSES
        case _:
            raise BadSetting(f"unknown setting {name!r}; known are {', '.join(Settings.__dataclass_fields__)}")
    if not good:
        raise BadSetting(f"{name} cannot be {value!r}")
