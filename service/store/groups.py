"""Failure groups: what fails in the same way is one line, however many effects it is; and what people wrote of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

# What differs from one failure to the next and says nothing about its kind, largest first.
_SCRUBBED = (
    ("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    ("\\m(pi|ch|re|py|cus|pm|src|req|evt|txn|acct)_[A-Za-z0-9_]+", "<ref>"),
    ("[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", "<address>"),
    ("\"[^\"]*\"|''[^'']*''", "<text>"),
    ("[0-9]+", "<n>"),
)


def _normalised(column: str) -> str:
    for pattern, name in _SCRUBBED:
        column = f"regexp_replace({column}, '{pattern}', '{name}', 'g')"
    return f"left({column}, 120)"


ERROR = _normalised("coalesce(o.last_error, '')")
"""The last error without what is particular to one effect."""
GROUP_ID = (
    "left(encode(sha256(convert_to(concat_ws('|', e.kind, e.state, coalesce(o.parked_reason, ''),"
    f" {ERROR}), 'utf8')), 'hex'), 12)"
)
"""The name of the group that an effect `e` with the outbox row `o` belongs to: 12 hex digits, the same for ever."""

# What is well needs no group: due, and nothing has gone wrong yet.
_FAILING = "(e.state in ('parked', 'unknown') or o.last_error is not null)"

_GROUPS = text(f"""
with found as (
    select {GROUP_ID} as id, e.kind, e.state, coalesce(o.parked_reason, '') as reason, {ERROR} as error,
           e.id as effect_id, e.amount, e.currency, coalesce(e.first_sent_at, e.created_at) as first_at,
           greatest(o.parked_at, e.first_sent_at, e.created_at) as last_at
    from outbox o join effects e on e.id = o.effect_id
    where {_FAILING} and (cast(:tenant as text) is null or e.tenant = :tenant)
      and (cast(:id as text) is null or {GROUP_ID} = :id)
    order by o.effect_id limit :cap
), summed as (
    select id, currency, sum(amount) as amount from found where currency is not null group by id, currency
)
select f.id, f.kind, f.state, f.reason, f.error, count(*) as count, min(first_at) as first_seen,
       max(last_at) as last_seen, (array_agg(cast(effect_id as text) order by effect_id))[1:3] as sample,
       coalesce((select jsonb_object_agg(s.currency, s.amount) from summed s where s.id = f.id), '{{}}') as money
from found f group by f.id, f.kind, f.state, f.reason, f.error order by count(*) desc, f.id limit :limit
""")
_OF = text(f"""
select {GROUP_ID} from outbox o join effects e on e.id = o.effect_id
where o.effect_id = cast(:effect_id as uuid) and {_FAILING}
""")
_NOTES = text("""
select group_id, note, author, at from group_notes
where group_id = any(:ids) and (cast(:tenant as text) is null or tenant = :tenant)
order by group_id, id
""")
_NOTE = text("insert into group_notes (group_id, tenant, note, author) values (:id, :tenant, :note, :author)")

CAP = 200_000  # failing rows that are looked through: an incident cannot wait for an exact count of more


def listed(
    connection: Connection, *, tenant: str | None = None, id_: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Groups, largest first, with their notes; `first_seen` and `last_seen` are times of the effects.

    A tenant sees its own effects and its own notes; without one, all of them.
    """
    rows = connection.execute(_GROUPS, {"tenant": tenant, "id": id_, "limit": limit, "cap": CAP}).mappings()
    groups = [{**row, "notes": []} for row in rows]
    by_id = {group["id"]: group for group in groups}
    for note in connection.execute(_NOTES, {"ids": list(by_id), "tenant": tenant}).mappings():
        by_id[note["group_id"]]["notes"].append({name: note[name] for name in ("note", "author", "at")})
    return groups


def of(connection: Connection, effect_id: str) -> str | None:
    """The group that an effect belongs to; None when it is settled or nothing has gone wrong yet."""
    found = connection.execute(_OF, {"effect_id": effect_id}).scalar()
    return None if found is None else str(found)


def note(connection: Connection, id_: str, text_: str, *, author: str, tenant: str | None = None) -> None:
    """Write about a group, whether it has members now or not; for `tenant` alone, or for operators."""
    connection.execute(_NOTE, {"id": id_, "tenant": tenant, "note": text_, "author": author})
