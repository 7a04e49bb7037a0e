"""Breaks: what does not agree between our books and the provider's, one open row for each, until a person closes it.

Seen again it is the same row with fresh evidence; seen again after it was closed it is a new row, because somebody
believed it was mended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

# One statement against the partial unique index, so that two audits, or an audit and a webhook, open one row.
_OPEN = text("""
insert into breaks (class, subject, effect_id, provider, provider_ref, amount, currency, detail,
                    first_audit, last_audit)
values (:class, :subject, cast(:effect_id as uuid), :provider, :provider_ref, :amount, :currency,
        cast(:detail as jsonb), :audit, :audit)
on conflict (class, subject) where closed_at is null do update set
    effect_id = coalesce(excluded.effect_id, breaks.effect_id),
    provider = coalesce(excluded.provider, breaks.provider),
    provider_ref = coalesce(excluded.provider_ref, breaks.provider_ref),
    amount = coalesce(excluded.amount, breaks.amount), currency = coalesce(excluded.currency, breaks.currency),
    detail = breaks.detail || excluded.detail,
    first_audit = coalesce(breaks.first_audit, excluded.first_audit),
    last_audit = coalesce(excluded.last_audit, breaks.last_audit), seen_at = clock_timestamp()
returning id, (xmax = 0) as is_new
""")

_CLOSE = text("""
update breaks set closed_at = clock_timestamp(), closed_by = :actor, note = coalesce(:note, note)
where id = :id and closed_at is null
""")

_COLUMNS = """
select id, class, subject, cast(effect_id as text) as effect_id, provider, provider_ref, amount, currency, detail,
       first_audit, last_audit, found_at, seen_at, owner, note, closed_at, closed_by,
       extract(epoch from clock_timestamp() - found_at)::float8 as age_seconds
from breaks
"""


def open(  # noqa: A001 - read as `breaks.open`
    connection: Connection,
    class_: str,
    subject: str,
    *,
    effect_id: str | None = None,
    provider: str | None = None,
    provider_ref: str | None = None,
    amount: int | None = None,
    currency: str | None = None,
    detail: Mapping[str, Any] | None = None,
    audit: int | None = None,
) -> bool:
    """Open the break, or refresh the one that is open; True when it is new. `audit` is the run that saw it."""
    row = connection.execute(
        _OPEN,
        {
            "class": class_,
            "subject": subject,
            "effect_id": effect_id,
            "provider": provider,
            "provider_ref": provider_ref,
            "amount": amount,
            "currency": currency,
            "detail": json.dumps(dict(detail or {}), default=str),
            "audit": audit,
        },
    ).one()
    return bool(row.is_new)


def close(connection: Connection, break_id: int, *, actor: str, note: str | None = None) -> bool:
    """Close an open break; False when it is closed already or does not exist."""
    return connection.execute(_CLOSE, {"id": break_id, "actor": actor, "note": note}).rowcount == 1


def listed(
    connection: Connection,
    *,
    class_: str | None = None,
    effect_id: str | None = None,
    closed: bool = False,
    after: int | None = None,
    limit: int = 1000,
) -> Sequence[Mapping[str, Any]]:
    """Up to `limit` breaks, oldest first, from beyond the id `after`; the open ones, with `closed` all."""
    where = [] if closed else ["closed_at is null"]
    wanted = {"class": class_, "effect_id": effect_id, "after": after}
    where += [
        {"class": "class = :class", "effect_id": "effect_id = cast(:effect_id as uuid)", "after": "id > :after"}[name]
        for name, value in wanted.items()
        if value is not None
    ]
    query = f"{_COLUMNS} {'where ' + ' and '.join(where) if where else ''} order by id limit :limit"
    parameters = {name: value for name, value in wanted.items() if value is not None}
    return [dict(row) for row in connection.execute(text(query), {**parameters, "limit": limit}).mappings()]
