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


# An error as an attempt writes it is one word of ours and, when it has one, the provider's code: `word (code)`. The
# status that our word ends with is such a code as well. Whatever else `last_error` holds is a sentence and has none.
_CODED = "'^([a-z0-9_]+) [(]([A-Za-z][A-Za-z_]*[0-9]{0,4})[)]$'"
_STATUS = "'^[a-z_]+_([0-9]{3})$'"
CODE = f"coalesce((regexp_match(o.last_error, {_CODED}))[2], (regexp_match(o.last_error, {_STATUS}))[1], '')"
"""The provider's code of the last error: its own word, or the status of HTTP or SMTP; '' when it has none."""
ERROR = _normalised(f"regexp_replace(coalesce(o.last_error, ''), {_CODED}, '\\1')")
"""The last error without its code, and without what is particular to one effect."""


def _names(kind: str, state: str, reason: str, error: str, code: str) -> tuple[str, str]:
    """SQL for a group's id, and for that of the same without regard to the code."""
    alike = f"concat_ws('|', {kind}, {state}, {reason}, {error})"
    former, coded = _name(alike), _name(f"{alike} || '|' || {code}")
    return f"case when {code} = '' then {former} else {coded} end", former


def _name(words: str) -> str:
    return f"left(encode(sha256(convert_to({words}, 'utf8')), 'hex'), 12)"


REASON = "coalesce(o.parked_reason, '')"
GROUP_ID, FORMER_ID = _names("e.kind", "e.state", REASON, ERROR, CODE)
"""The name of the group that an effect `e` with the outbox row `o` belongs to: 12 hex digits, the same for ever.

The former one knows no code: so groups were named at first, and so they stand in old notes and tickets.
"""


def within(name: str) -> str:
    """Whether `e` and `o` are in the group of this parameter, which may be an id of before codes told groups apart."""
    return f"({GROUP_ID} = :{name} or {FORMER_ID} = :{name})"


# What is well needs no group: due, and nothing has gone wrong yet.
_FAILING = "(e.state in ('parked', 'unknown') or o.last_error is not null)"

_READ_ID, _READ_FORMER_ID = _names("kind", "state", "reason", "error", "code")

# Read first and named then: each expression above is worked out once a row.
_GROUPS = text(f"""
with parts as materialized (
    select e.kind, e.state, {REASON} as reason, {ERROR} as error, {CODE} as code, e.id as effect_id, e.amount,
           e.currency, coalesce(e.first_sent_at, e.created_at) as first_at,
           greatest(o.parked_at, e.first_sent_at, e.created_at) as last_at
    from outbox o join effects e on e.id = o.effect_id
    where {_FAILING} and (cast(:tenant as text) is null or e.tenant = :tenant)
    order by o.effect_id limit :cap
), found as (
    select *, {_READ_ID} as id, {_READ_FORMER_ID} as former_id from parts
), summed as (
    select id, currency, sum(amount) as amount from found where currency is not null group by id, currency
)
select f.id, f.former_id, f.kind, f.state, f.reason, f.error, f.code, count(*) as count, min(first_at) as first_seen,
       max(last_at) as last_seen, (array_agg(cast(effect_id as text) order by effect_id))[1:3] as sample,
       coalesce((select jsonb_object_agg(s.currency, s.amount) from summed s where s.id = f.id), '{{}}') as money
from found f where cast(:id as text) is null or f.id = :id or f.former_id = :id
group by f.id, f.former_id, f.kind, f.state, f.reason, f.error, f.code
order by count(*) desc, f.id limit :limit
""")
_OF = text(f"""
select {GROUP_ID} from outbox o join effects e on e.id = o.effect_id
where o.effect_id = cast(:effect_id as uuid) and {_FAILING}
""")
_NOTES = text("""
select group_id, note, author, at from group_notes
where group_id = any(:ids) and (cast(:tenant as text) is null or tenant = :tenant)
order by id
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
    groups = [dict(row) for row in rows]
    ids = list({group[name] for group in groups for name in ("id", "former_id")})
    notes = [dict(note) for note in connection.execute(_NOTES, {"ids": ids, "tenant": tenant}).mappings()]
    for group in groups:  # what was written of a group before codes told it apart concerns each of its parts
        names = (group["id"], group.pop("former_id"))
        group["notes"] = [{n: note[n] for n in ("note", "author", "at")} for note in notes if note["group_id"] in names]
    return groups


def of(connection: Connection, effect_id: str) -> str | None:
    """The group that an effect belongs to; None when it is settled or nothing has gone wrong yet."""
    found = connection.execute(_OF, {"effect_id": effect_id}).scalar()
    return None if found is None else str(found)


def note(connection: Connection, id_: str, text_: str, *, author: str, tenant: str | None = None) -> None:
    """Write about a group, whether it has members now or not; for `tenant` alone, or for operators."""
    connection.execute(_NOTE, {"id": id_, "tenant": tenant, "note": text_, "author": author})
