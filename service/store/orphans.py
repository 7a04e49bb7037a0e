"""Orphans: objects at the provider whose effects a database that went back in time has forgotten.

Nobody refunds them by himself. When their caller repeats its dedupe key, the new effect finds its orphan at its first
claim, in the statement that claims: it goes on with the money that has moved and moves none again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

ORPHAN_BREAK = "orphan_at_provider"

# Hardly ever is there one, and then nothing is hashed.
ANY = """
orphaned as materialized (
    select exists (select 1 from orphans where dedupe_hash is not null and adopted_by is null) as any_one
)
"""
"""A common table expression for `OF_EFFECT`."""

_HASH = "encode(sha256(convert_to(e.tenant || chr(10) || e.kind || chr(10) || e.dedupe_key, 'UTF8')), 'hex')"

OF_EFFECT = f"""
    select o.provider_ref as ref, o.provider_created_at as sent_at,
           jsonb_build_object(case o.kind when 'refund' then 'refund' else 'payment_intent' end, o.provider_ref,
                              'effect_id', o.effect_id) as found
    from orphans o
    where (select any_one from orphaned) and o.dedupe_hash = {_HASH} and o.dedupe_hash is not null
      and o.adopted_by is null
    offset 0 -- else the planner would hash first and ask for `any_one` afterwards
"""
"""The orphan that the effect `e` finds: as `core.keys.dedupe_hash` names it."""

_ADOPTED = text("""
with pairs as materialized (
    select * from unnest(cast(:ids as uuid[]), cast(:refs as text[])) as p (id, ref)
), taken as (
    update orphans o set adopted_by = p.id from pairs p where o.provider_ref = p.ref and o.adopted_by is null
), closed as (
    update breaks b set closed_at = clock_timestamp(), closed_by = :actor,
        note = coalesce(b.note || '; ', '') || 'adopted by ' || p.id
    from pairs p where b.class = :class and b.closed_at is null
      and b.subject in ('charge ' || p.ref, 'refund ' || p.ref)
)
insert into journal (effect_id, fact, attempt, actor, evidence)
select e.id, 'progressed', e.attempt, :actor, jsonb_build_object('adopted', p.ref)
from pairs p join effects e on e.id = p.id
""")

# Two objects of one name would be two movements of money for one key: the second keeps its break and no name.
_KEEP = text("""
insert into orphans (provider, provider_ref, dedupe_hash, effect_id, kind, amount, currency, provider_created_at,
                     incarnation)
select :provider, :provider_ref,
       case when not exists (select 1 from orphans where dedupe_hash = :dedupe_hash and adopted_by is null)
            then cast(:dedupe_hash as text) end,
       cast(:effect_id as uuid), :kind, :amount, :currency, :created_at, :incarnation
on conflict (provider, provider_ref) do nothing
""")

_ADOPTERS = text("""
select provider_ref from orphans where provider = :provider and provider_ref = any(:refs) and adopted_by is not null
""")

_COUNT = text("select count(*) from orphans where adopted_by is null")

_LISTED = text("""
select provider, provider_ref, kind, amount, currency, cast(effect_id as text) as effect_id, provider_created_at,
       found_at, cast(adopted_by as text) as adopted_by
from orphans where adopted_by is null order by found_at, provider_ref limit :limit
""")


@dataclass(frozen=True, slots=True)
class Orphan:
    """One object at the provider without an effect of ours. `effect_id` is what it says of itself."""

    provider: str
    provider_ref: str
    kind: str
    effect_id: str
    dedupe_hash: str | None
    amount: int | None
    currency: str | None
    created_at: datetime


def keep(connection: Connection, orphan: Orphan, *, incarnation: int | None) -> bool:
    """Write the orphan down; False when it is known."""
    given = {name: getattr(orphan, name) for name in Orphan.__slots__}
    return connection.execute(_KEEP, {**given, "incarnation": incarnation}).rowcount == 1


def adopted(connection: Connection, pairs: Sequence[tuple[str, str]], *, actor: str) -> None:
    """Effects have found their orphans (effect id, provider's id): the orphans are theirs, the breaks closed.

    Not in the claim itself, which holds the orphan's id already: after a crash in between the next claim says so again.
    """
    given = {"ids": [id_ for id_, _ in pairs], "refs": [ref for _, ref in pairs]}
    connection.execute(_ADOPTED, {**given, "actor": actor, "class": ORPHAN_BREAK})


def adopted_among(connection: Connection, provider: str, refs: Sequence[str]) -> set[str]:
    """Those of the provider's ids that an effect of ours has taken over."""
    return set(connection.execute(_ADOPTERS, {"provider": provider, "refs": list(refs)}).scalars())


def count(connection: Connection) -> int:
    """Orphans that nobody has adopted."""
    return int(connection.execute(_COUNT).scalar_one())


def listed(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` orphans that nobody has adopted, the oldest find first."""
    return [dict(row) for row in connection.execute(_LISTED, {"limit": limit}).mappings()]
