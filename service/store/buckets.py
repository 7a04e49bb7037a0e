"""Buckets: how many calls of a provider's account all workers together may begin, counted in one row a provider.

Tokens flow in by the database's clock. They are taken by the effect, right before a claim, and never held while
somebody waits: a process that dies loses what it took and no more. Losing a write of ours is harmless (tokens come
back), so none waits for the disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

# `now()` is the statement's own beginning, so waiting for the row's lock fills no bucket twice. A database whose clock
# went back (a failover to another machine) begins to fill anew instead of waiting for the old time.
_LEVEL = """
    least(burst, tokens + per_second * greatest(0, extract(epoch from now() - filled_at)::float8))
"""
# What arithmetic with fractions may lose must not cost an effect its turn.
_GRANTED = f"least(:effects, floor(({_LEVEL} + 1e-9) / :cost)) * :cost"

_TAKE = text(f"""
update buckets set
    tokens = greatest(0, {_LEVEL} - {_GRANTED}), granted = {_GRANTED},
    filled_at = case when filled_at > now() + interval '10 seconds' then now() else greatest(filled_at, now()) end
where account = :account
returning granted, greatest(0, :cost - tokens) / per_second as wait,
          (select set_config('synchronous_commit', 'off', true)) as unsynced
""")

_GIVE_BACK = text("""
update buckets set tokens = least(burst, tokens + :calls) where account = :account
returning (select set_config('synchronous_commit', 'off', true)) as unsynced
""")

# A kind has one bucket: whoever changes the provider of e-mail leaves no bucket of the old one behind.
_OTHERS = text("delete from buckets where account <> :account and jsonb_exists_any(costs, cast(:kinds as text[]))")
_PUT = text("""
insert into buckets as b (account, costs, per_second, burst, tokens)
values (:account, cast(:costs as jsonb), :per_second, :burst, :burst)
on conflict (account) do update set costs = excluded.costs, per_second = excluded.per_second, burst = excluded.burst,
    tokens = least(b.tokens, excluded.burst)
where (b.costs, b.per_second, b.burst) is distinct from (excluded.costs, excluded.per_second, excluded.burst)
""")

_STANDING = text(f"select account, costs, per_second, burst, {_LEVEL} as tokens from buckets order by account")


@dataclass(frozen=True, slots=True)
class Bucket:
    """One account's pace. `costs`: kind to calls of one effect; never more than `per_second` + `burst` in a second."""

    account: str
    costs: Mapping[str, int]
    per_second: float
    burst: float


@dataclass(frozen=True, slots=True)
class Grant:
    """How many effects may begin now, and when the next one may."""

    effects: int
    wait_seconds: float


def put(connection: Connection, bucket: Bucket) -> None:
    """Make this the pace of its account; a bucket that is there keeps its tokens."""
    connection.execute(_OTHERS, {"account": bucket.account, "kinds": list(bucket.costs)})
    given = {"account": bucket.account, "per_second": bucket.per_second, "burst": bucket.burst}
    connection.execute(_PUT, {**given, "costs": json.dumps(dict(bucket.costs))})


def drop(connection: Connection, kinds: list[str]) -> None:
    """Let these kinds go without a pace."""
    connection.execute(_OTHERS, {"account": "", "kinds": kinds})


def take(connection: Connection, bucket: Bucket, kind: str, effects: int) -> Grant | None:
    """Tokens for up to `effects` of this kind; None when the bucket's row is gone."""
    given = {"account": bucket.account, "cost": float(bucket.costs[kind]), "effects": float(effects)}
    row = connection.execute(_TAKE, given).one_or_none()
    return Grant(round(row.granted / bucket.costs[kind]), float(row.wait)) if row else None


def give_back(connection: Connection, bucket: Bucket, kind: str, effects: int) -> None:
    """Nothing was begun with these: their tokens are for others."""
    connection.execute(_GIVE_BACK, {"account": bucket.account, "calls": float(bucket.costs[kind] * effects)})


def standing(connection: Connection) -> list[dict[str, Any]]:
    """Every bucket as it is now, for people: account, costs, per_second, burst, tokens."""
    return [dict(row) for row in connection.execute(_STANDING).mappings()]
