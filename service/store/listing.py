"""Lists of effects by keyset: each page is found by an index, and one that cannot be gives up soon and says so.

The ledger keeps everything for ever, so no list may read it through. A tenant's effects stand in an index newest first
by id, whose first bits are the time (RFC 9562, UUIDv7): all of them, those of each kind, those that failed, those that
are not settled. The rest are found by key, reference or link.
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

from service.core.state import State
from service.store.database import transaction

# A person waits for a page, and a connection is held as long: what takes longer is not found by an index.
PATIENCE_MILLISECONDS = 3_000
# Ids are made by the callers' clocks and `created_at` is the database's: nobody's clock is wrong by more.
_CLOCKS_DIFFER = timedelta(days=1)
_KEY_END = "\x7f"  # after every character that a key may hold

# An outbox row is looked for by those rows of the page alone that have something to tell of it.
_LEDGER = """
select cast(e.id as text) as id, e.tenant, e.kind, e.dedupe_key, e.state, e.attempt, e.not_before, e.in_doubt,
       e.provider, e.provider_ref, e.outcome, e.amount, e.currency, cast(e.caused_by as text) as caused_by,
       cast(e.concerns as text) as concerns, e.created_at, e.settled_at, case when e.state = 'parked' then
           (select o.parked_reason from outbox o where o.effect_id = e.id) end as parked_reason
from effects e
"""

# For this transaction alone: a plan made for these very filters, an end to one that was bad, and a walk in the order of
# the page that ends with it; a bitmap collects all that match first, and a planner that expects few does so gladly.
CAUTIOUS = text("""
select set_config('statement_timeout', :patience, true), set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('enable_bitmapscan', 'off', true)
""")
_BYTEWISE = text("select datcollate in ('C', 'POSIX') from pg_database where datname = current_database()")

# Said so that the planner does not know it is one tenant, and `order by e.tenant` means something to it: else it walks
# the whole ledger by its primary key for a tenant that has a good part of it, and may have been silent for a year.
_WHERE = {
    "tenant": "e.tenant = any(array[cast(:tenant as text)])",
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
# `state` changes and so stands in no index (tables.py); what each state implies does.
_IMPLIED = {
    State.FAILED: "e.failed",
    State.SUCCEEDED: "e.settled_at is not null and not e.failed",
    State.PARKED: "e.settled_at is null and e.id in (select o.effect_id from outbox o where o.road = 'parked')",
}
_UNSETTLED = "e.settled_at is null"
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
        connection.execute(CAUTIOUS, {"patience": str(PATIENCE_MILLISECONDS)})
        asked, values = query(connection, filters, after)
        try:
            rows = connection.execute(text(asked), {**values, "limit": limit}).mappings().all()
        except OperationalError as error:
            if isinstance(error.orig, psycopg.errors.QueryCanceled):
                raise TooWide from None
            raise
    return [dict(row) for row in rows]


def place(filters: Filters, row: Mapping[str, Any]) -> str:
    """Where a row stands in its list."""
    return f"{row['kind']} {row['dedupe_key']}" if filters.key_prefix is not None else str(row["id"])


def query(connection: Connection, filters: Filters, after: str | None) -> tuple[str, dict[str, Any]]:
    """The statement of a page, and its values but `limit`."""
    values = filters.chosen()
    where = [_WHERE[name] for name in values]
    if filters.state:
        where.append(_IMPLIED.get(State(filters.state), _UNSETTLED))
    if filters.ref:
        values["providers"] = list(PROVIDERS)
    # The time of an id bounds the walk through the ledger; `created_at` decides.
    for name, sign, slack in (("created_since", ">=", -_CLOCKS_DIFFER), ("created_until", "<=", _CLOCKS_DIFFER)):
        if moment := values.get(name):
            values[f"id_{name}"] = _id_at(moment + slack)
            where.append(f"e.id {sign} cast(:id_{name} as uuid)")
    if filters.key_prefix is not None:
        order = "e.tenant, e.kind, e.dedupe_key"
        if connection.execute(_BYTEWISE).scalar_one():
            # Elsewhere keys of one prefix need not stand together; there the walk ends with the kind.
            where.append("e.dedupe_key < :key_end")
            values["key_end"] = filters.key_prefix + _KEY_END
        if after:
            where.append("(e.kind, e.dedupe_key) > (:after_kind, :after_key)")
            values["after_kind"], _, values["after_key"] = after.partition(" ")
    else:
        order = "e.tenant desc, e.id desc"
        if after:
            where.append("e.id < cast(:after as uuid)")
            values["after"] = after
    return f"{_LEDGER} where {' and '.join(where)} order by {order} limit :limit", values


def _id_at(moment: datetime) -> str:
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return str(uuid.UUID(int=milliseconds << 80))
