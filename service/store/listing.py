"""Lists of effects by keyset: each page is found by an index, and one that cannot be gives up soon and says so.

The ledger keeps everything for ever, so no list may read it through. What is unsettled is found by the outbox, which
holds just that; the rest newest first by id, whose first bits are the time (RFC 9562, UUIDv7), or by key.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from service.core.state import FINAL
from service.store.database import transaction

# A person waits for a page, and a connection is held as long: what takes longer is not found by an index.
PATIENCE_MILLISECONDS = 3_000
# Ids are made by the callers' clocks and `created_at` is the database's: nobody's clock is wrong by more.
_CLOCKS_DIFFER = timedelta(days=1)
_KEY_END = "\x7f"  # after every character that a key may hold

_COLUMNS = """
select cast(e.id as text) as id, e.tenant, e.kind, e.dedupe_key, e.state, e.attempt, e.not_before, e.in_doubt,
       e.provider, e.provider_ref, e.outcome, e.amount, e.currency, cast(e.caused_by as text) as caused_by,
       cast(e.concerns as text) as concerns, e.created_at, e.settled_at, o.parked_reason
from"""
_LEDGER = f"{_COLUMNS} effects e left join outbox o on o.effect_id = e.id"
_UNSETTLED = f"{_COLUMNS} outbox o join effects e on e.id = o.effect_id"

# For this transaction alone: a plan made for these very filters, and an end to one that was bad.
_CAUTIOUS = text("""
select set_config('statement_timeout', :patience, true), set_config('plan_cache_mode', 'force_custom_plan', true)
""")
_BYTEWISE = text("select datcollate in ('C', 'POSIX') from pg_database where datname = current_database()")

_WHERE = {
    "tenant": "e.tenant = :tenant",
    "kind": "e.kind = :kind",
    "state": "e.state = :state",
    "ref": "e.provider_ref = :ref and e.provider = any(:providers)",
    "key": "e.dedupe_key = :key",
    "caused_by": "e.caused_by = cast(:caused_by as uuid)",
    "concerns": "e.concerns = cast(:concerns as uuid)",
    "created_since": "e.created_at >= :created_since",
    "created_until": "e.created_at < :created_until",
    "key_prefix": "starts_with(e.dedupe_key, :key_prefix) and e.dedupe_key >= :key_prefix",
}
PROVIDERS = ("stripe", "resend", "smtp")
"""By whose names `ref` is looked for: the index begins with them."""


class TooWide(Exception):
    """No index finds this list soon enough; the filters must be narrower."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which effects; None is any."""

    tenant: str
    kind: str | None = None
    state: str | None = None
    key: str | None = None
    key_prefix: str | None = None
    ref: str | None = None
    caused_by: str | None = None
    concerns: str | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None

    def chosen(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}


def page(filters: Filters, *, after: str | None, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` effects beyond `after`, the `place` of the last row before: newest first, by key for a prefix.

    Raises TooWide; DependencyUnavailable.
    """
    with transaction() as connection:
        connection.execute(_CAUTIOUS, {"patience": str(PATIENCE_MILLISECONDS)})
        query, values = _query(connection, filters, after)
        try:
            rows = connection.execute(text(query), {**values, "limit": limit}).mappings().all()
        except OperationalError as error:
            if isinstance(error.orig, psycopg.errors.QueryCanceled):
                raise TooWide from None
            raise
    return [dict(row) for row in rows]


def place(filters: Filters, row: Mapping[str, Any]) -> str:
    """Where a row stands in its list."""
    return f"{row['kind']} {row['dedupe_key']}" if filters.key_prefix is not None else str(row["id"])


def _query(connection: Connection, filters: Filters, after: str | None) -> tuple[str, dict[str, Any]]:
    values = filters.chosen()
    where = [_WHERE[name] for name in values]
    if filters.ref:
        values["providers"] = list(PROVIDERS)
    # The time of an id bounds the walk through the ledger; `created_at` decides.
    for name, sign, slack in (("created_since", ">=", -_CLOCKS_DIFFER), ("created_until", "<=", _CLOCKS_DIFFER)):
        if moment := values.get(name):
            values[f"id_{name}"] = _id_at(moment + slack)
            where.append(f"e.id {sign} cast(:id_{name} as uuid)")
    if filters.key_prefix is not None:
        order = "e.kind, e.dedupe_key"
        if connection.execute(_BYTEWISE).scalar_one():
            # Elsewhere keys of one prefix need not stand together; there the walk ends with the kind.
            where.append("e.dedupe_key < :key_end")
            values["key_end"] = filters.key_prefix + _KEY_END
        if after:
            where.append("(e.kind, e.dedupe_key) > (:after_kind, :after_key)")
            values["after_kind"], _, values["after_key"] = after.partition(" ")
    else:
        order = "e.id desc"
        if after:
            where.append("e.id < cast(:after as uuid)")
            values["after"] = after
    source = _UNSETTLED if filters.state and filters.state not in FINAL else _LEDGER
    return f"{source} where {' and '.join(where)} order by {order} limit :limit", values


def _id_at(moment: datetime) -> str:
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return str(uuid.UUID(int=milliseconds << 80))
