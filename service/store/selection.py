"""Which effects an operator means: selectors as SQL over the outbox, and what stands against each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from service.store.groups import within

# Delivered this often and never claimed, or due for so long: nobody serves its lane, or nothing goes on at all.
UNCLAIMED_DELIVERIES = 3
OVERDUE_SECONDS = 900

STUCK = f"""
(e.state in ('parked', 'unknown') or (o.road <> 'held' and (
    o.available_at < now() - interval '{OVERDUE_SECONDS} seconds'
    or (o.deliveries >= {UNCLAIMED_DELIVERIES} and e.attempt = 0)
    or (e.state = 'executing' and e.lease_until < now() - interval '{OVERDUE_SECONDS} seconds'))))
"""

_COLUMNS = """
select cast(e.id as text) as effect_id, e.tenant, e.kind, e.dedupe_key, e.state, e.attempt, e.amount, e.currency,
       e.created_at, o.lane, o.road, o.parked_reason, o.last_error,
       e.state = 'executing' and e.lease_until >= now() as live,
       (select count(*) from journal j where j.effect_id = e.id and j.fact = 'replayed') as replays
"""
_WHERE = {
    "ids": "e.id = any(cast(:ids as uuid[]))",
    "kind": "e.kind = :kind",
    "tenant": "e.tenant = :tenant",
    "lane": "o.lane = :lane",
    "older_than_seconds": "e.created_at < now() - make_interval(secs => :older_than_seconds)",
    "since": "e.created_at >= :since",
    "until": "e.created_at < :until",
    "error_like": "(position(lower(:error_like) in lower(coalesce(o.last_error, ''))) > 0"
    " or position(lower(:error_like) in lower(coalesce(o.parked_reason, ''))) > 0)",
    "group": within("group"),
    "key_prefix": "starts_with(e.dedupe_key, :key_prefix)",
    "ref": "(e.provider_ref = :ref or e.progress ->> 'payment_intent' = :ref)",
    "operation": "e.id in (select effect_id from operation_items where operation_id = cast(:operation as uuid))",
}


def unsettled(connection: Connection, wanted: Mapping[str, Any], *, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` effects that all of `wanted` describe, oldest first. `state`: parked, unknown or stuck."""
    values = {name: value for name, value in wanted.items() if value is not None}
    where = [_WHERE[name] for name in values if name != "state"]
    if (state := values.get("state")) is not None:
        where.append(STUCK if state == "stuck" else "e.state = :state")
    query = f"{_COLUMNS} from outbox o join effects e on e.id = o.effect_id where {' and '.join(where)}"
    rows = connection.execute(text(f"{query} order by o.effect_id limit :limit"), {**values, "limit": limit})
    return [dict(row) for row in rows.mappings()]


_BY_ID = text(f"""
{_COLUMNS} from effects e left join outbox o on o.effect_id = e.id
where e.id = any(cast(:ids as uuid[])) and (cast(:tenant as text) is null or e.tenant = :tenant)
""")


def by_id(connection: Connection, ids: tuple[str, ...], *, tenant: str | None) -> dict[str, dict[str, Any]]:
    """Those of `ids` that exist (for this tenant), settled ones too."""
    rows = connection.execute(_BY_ID, {"ids": list(ids), "tenant": tenant}).mappings()
    return {row["effect_id"]: dict(row) for row in rows}
