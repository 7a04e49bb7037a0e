"""API keys at rest: a hash and what the key may do. One with a rate has its bucket beside it, shared by all processes.

The bucket is a row of Postgres and no other store's: callers do not need the broker, and a limit that lives in one
process is as many limits as there are processes. It costs one small write a request, without a disk flush, and only
keys that were given a rate pay it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

_COLUMNS = """
    k.id, k.tenant, k.name, k.scopes, k.per_second, k.burst, k.created_at, k.created_by, k.expires_at, k.rotates,
    k.revoked_at, k.revoked_by, k.used_at,
    case when k.revoked_at is not null then 'revoked' when k.expires_at <= clock_timestamp() then 'expired'
         else 'live' end as state
"""
_INSERT = text(f"""
insert into api_keys as k (id, tenant, name, hash, scopes, per_second, burst, created_by, expires_at, rotates)
values (:id, :tenant, :name, :hash, :scopes, :per_second, :burst, :actor,
        coalesce(cast(:expires_at as timestamptz),
                 clock_timestamp() + make_interval(secs => cast(:seconds as float8))), :rotates)
returning {_COLUMNS}
""")
# The older key keeps its place until the grace is over, and no longer than it would have lived anyway.
_RETIRE = text(f"""
update api_keys k set expires_at = least(k.expires_at, clock_timestamp() + make_interval(secs => :grace))
where k.id = :id and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())
returning {_COLUMNS}
""")
_REVOKE = text(f"""
update api_keys k set revoked_at = clock_timestamp(), revoked_by = :actor where k.id = :id and k.revoked_at is null
returning {_COLUMNS}
""")
_ONE = text(f"select {_COLUMNS} from api_keys k where k.id = :id")
_HEIR = text(f"""
select {_COLUMNS} from api_keys k
where k.rotates = :id and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp()) limit 1
""")
_LOCK = text("select 1 from api_keys where id = :id for no key update")
_LIST = text(f"""
select {_COLUMNS} from api_keys k
where (cast(:tenant as text) is null or k.tenant = :tenant)
  and (:whole or (k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())))
order by k.created_at, k.id
""")

_FACTS = """
    k.hash, k.tenant, k.scopes, k.per_second, k.burst, k.revoked_at is not null as revoked,
    coalesce(k.expires_at <= clock_timestamp(), false) as expired,
    extract(epoch from k.expires_at - clock_timestamp())::float8 as seconds_left,
    (k.used_at is null or k.used_at < now() - interval '1 minute') as used_long_ago
"""
_LOOK = text(f"select {_FACTS} from api_keys k where k.id = :id")

# What has flown in since it was filled, by one clock; two processes take from the row one after the other.
_HAVE = """
    least(k.burst, coalesce(k.tokens, k.burst) + k.per_second * greatest(0, coalesce(
        extract(epoch from clock_timestamp() - k.filled_at)::float8, 0)))
"""
# The hash stands in the guard, so that who knows only the public id cannot empty the bucket of its owner.
_TAKE = text(f"""
with taken as (
    update api_keys k set tokens = {_HAVE} - 1, filled_at = greatest(k.filled_at, clock_timestamp()),
        used_at = case when k.used_at > now() - interval '1 minute' then k.used_at else now() end
    where k.id = :id and k.hash = :hash and k.per_second is not null and k.revoked_at is null
      and (k.expires_at is null or k.expires_at > clock_timestamp()) and {_HAVE} >= 1
    returning k.tokens
)
select {_FACTS}, (select tokens from taken) as tokens, (1 - {_HAVE}) / k.per_second as wait,
       -- Without a disk flush: a crash gives back a moment's requests, which is harmless.
       (select set_config('synchronous_commit', 'off', true)) as unsynced
from api_keys k where k.id = :id
""")
_USED = text("""
with used as (
    update api_keys set used_at = now()
    where id = :id and (used_at is null or used_at < now() - interval '1 minute') returning 1
)
select count(*), set_config('synchronous_commit', 'off', true) from used
""")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a check needs of a key. `seconds_left` is None for one that does not expire."""

    hash: str
    tenant: str
    scopes: frozenset[str]
    per_second: float | None
    burst: int | None
    revoked: bool
    expired: bool
    seconds_left: float | None
    used_long_ago: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """One request was let in: `tokens` is what is left; None is none, and there will be one in `wait` seconds."""

    facts: Facts
    tokens: float | None
    wait: float


def insert(
    connection: Connection,
    *,
    id_: str,
    hash_: str,
    tenant: str,
    name: str,
    scopes: Sequence[str],
    actor: str,
    expires_in: float | None,
    expires_at: datetime | None,
    per_second: float | None,
    burst: int | None,
    rotates: str | None,
) -> dict[str, Any]:
    """Keep a new key's hash; its row."""
    given = {
        "id": id_,
        "hash": hash_,
        "tenant": tenant,
        "name": name,
        "scopes": list(scopes),
        "actor": actor,
        "seconds": expires_in,
        "expires_at": expires_at,
        "per_second": per_second,
        "burst": burst,
        "rotates": rotates,
    }
    return dict(connection.execute(_INSERT, given).mappings().one())


def lock(connection: Connection, id_: str) -> None:
    """Let two rotations of one key take turns."""
    connection.execute(_LOCK, {"id": id_})


def one(connection: Connection, id_: str) -> dict[str, Any] | None:
    """A key's row without its hash."""
    row = connection.execute(_ONE, {"id": id_}).mappings().one_or_none()
    return dict(row) if row else None


def heir(connection: Connection, id_: str) -> dict[str, Any] | None:
    """The live key that took over from this one."""
    row = connection.execute(_HEIR, {"id": id_}).mappings().one_or_none()
    return dict(row) if row else None


def retire(connection: Connection, id_: str, *, grace: float) -> dict[str, Any] | None:
    """Let a live key expire in `grace` seconds or earlier; None when it is not live."""
    row = connection.execute(_RETIRE, {"id": id_, "grace": grace}).mappings().one_or_none()
    return dict(row) if row else None


def revoke(connection: Connection, id_: str, *, actor: str) -> dict[str, Any] | None:
    """End a key now; None when it was revoked before, or there is none."""
    row = connection.execute(_REVOKE, {"id": id_, "actor": actor}).mappings().one_or_none()
    return dict(row) if row else None


def listed(connection: Connection, *, tenant: str | None, whole: bool) -> list[dict[str, Any]]:
    """Keys, oldest first: the live ones, or with `whole` all that ever were."""
    return [dict(row) for row in connection.execute(_LIST, {"tenant": tenant, "whole": whole}).mappings()]


def look(connection: Connection, id_: str) -> Facts | None:
    """What is known of a key; None when there is none."""
    row = connection.execute(_LOOK, {"id": id_}).one_or_none()
    return _facts(row) if row else None


def take(connection: Connection, id_: str, hash_: str) -> Taken | None:
    """Take one request out of a key's bucket; None when there is no such key."""
    row = connection.execute(_TAKE, {"id": id_, "hash": hash_}).one_or_none()
    return Taken(_facts(row), row.tokens, float(row.wait or 0.0)) if row else None


def used(connection: Connection, id_: str) -> None:
    """Note that a key is in use, to the minute."""
    connection.execute(_USED, {"id": id_})


def _facts(row: Any) -> Facts:
    return Facts(
        hash=row.hash,
        tenant=row.tenant,
        scopes=frozenset(row.scopes),
        per_second=row.per_second,
        burst=row.burst,
        revoked=row.revoked,
        expired=row.expired,
        seconds_left=row.seconds_left,
        used_long_ago=row.used_long_ago,
    )
