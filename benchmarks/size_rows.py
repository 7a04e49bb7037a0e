"""The rows of a large ledger, written by SQL with all constraints on: settled effects, their journal, a backlog."""

from __future__ import annotations

import sys
import time

import psycopg

BATCH = 100_000
SEED_SETTLED = 1_000  # of the empty system: one tenant's pages must be full there too
TENANTS = 97

SETTLED = """
with rows as (
    select i, now() - interval '300 days' * (1 - (i + 0.5) / %(total)s) as at, i %% 20 = 0 as failed,
           case when i %% 10 < 7 then 'charge' else 'email' end as kind,
           case when i %% %(small_each)s = 7 then 'small' else 'tenant-' || (i %% %(tenants)s + 1) end as tenant
    from generate_series(%(first)s::bigint, %(last)s::bigint) i
), made as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, attempt, first_sent_at, policy,
                         provider, provider_ref, outcome, amount, currency, created_at, settled_at)
    select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(i %% 4096), 3, '0')
            || '8' || lpad(to_hex(i), 15, '0'))::uuid,
           tenant, kind, 'order:' || i || ':' || kind, encode(sha256(i::text::bytea), 'hex'),
           case when kind = 'charge'
                then jsonb_build_object('amount', 4200, 'currency', 'eur', 'payment_method', 'pm_' || i,
                                        'description', 'Order ' || i)
                else jsonb_build_object('to', 'c' || i || '@example.test', 'subject', 'Order ' || i,
                                        'text', repeat('Thank you. ', 20)) end,
           case when failed then 'failed' else 'succeeded' end, 1, at, 'at_most_once',
           case when kind = 'charge' then 'stripe' else 'resend' end, case when not failed then 'ref_' || i end,
           jsonb_build_object('charge', 'ch_' || i), case when kind = 'charge' then 4200 end,
           case when kind = 'charge' then 'eur' end, at, at + interval '2 seconds'
    from rows returning id, created_at, state
)
insert into journal (effect_id, at, fact, attempt, actor, evidence)
select id, created_at + f.after, coalesce(f.fact, state), f.attempt, 'bench', f.evidence
from made, (values (interval '0', 'accepted', 0, '{}'::jsonb), (interval '1 second', 'claimed', 1, '{}'),
                   (interval '2 seconds', null, 1, '{"status": 200, "request_id": "req_1"}')
            ) f (after, fact, attempt, evidence)
"""

WAITING = """
with made as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy, amount, currency)
    select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(i %% 4096), 3, '0')
            || '9' || lpad(to_hex(i), 15, '0'))::uuid,
           'tenant-' || (i %% %(tenants)s + 1), 'charge', 'waiting:' || i, encode(sha256(i::text::bytea), 'hex'),
           '{"amount": 4200, "currency": "eur", "payment_method": "pm_1"}', 'pending', 'at_most_once', 4200, 'eur'
    from generate_series(%(first)s::bigint, %(last)s::bigint) i returning id
), facts as (
    insert into journal (effect_id, fact, attempt, actor) select id, 'accepted', 0, 'bench' from made
)
insert into outbox (effect_id, kind, lane, road, available_at)
select id, 'charge', 'charge', case when row_number() over () %% 5 = 0 then 'later' else 'fresh' end,
       case when row_number() over () %% 5 = 0 then now() + interval '1 hour' else now() end
from made
"""


def fill(url: str, insert: str, rows: int, what: str) -> None:
    """Write `rows` rows of a sort, a batch a commit."""
    tenants = TENANTS if rows > SEED_SETTLED else 1
    shares = {"tenants": tenants, "small_each": 1000 if tenants > 1 else 17}
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(0, rows, BATCH):
            last = min(first + BATCH, rows) - 1
            connection.execute(insert, {"first": first, "last": last, "total": rows, **shares})
            if rows > BATCH:
                rate = (last + 1) / (time.monotonic() - began)
                print(f"\r{last + 1:>11,} of {rows:,} {what}, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)
    if rows > BATCH:
        print(file=sys.stderr)
