"""The rows of a large ledger, written by SQL with all constraints on: settled effects, their journal, a backlog.

Lists are asked for `tenant-2` (a hundredth of all, with failures, letters and a share of the backlog), for `small` (a
thousandth, nothing waits) and for `clean` (a hundredth, nothing has ever failed); what the benchmark writes is another
tenant's. The empty system has each sort by the page, too, so that both sides answer with as many rows.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock

import psycopg

BATCH = 50_000
CONNECTIONS = 2
SEED_SETTLED = 3_000  # of the empty system
SEED_WAITING = 100  # the same; due later, so that nobody takes them and the page stays full
TENANTS = 97
DAYS = 300

SETTLED = """
with rows as (
    select i, now() - interval '300 days' * (1 - (i + 0.5) / %(total)s) as at, tenant,
           i %% 20 = 0 and tenant <> 'clean' as failed, case when i %% 10 < 7 then 'charge' else 'email' end as kind
    from generate_series(%(first)s::bigint, %(last)s::bigint) i,
         lateral (values (case when i %% %(small_each)s = 7 then 'small' when i %% %(clean_each)s = 9 then 'clean'
                               else 'tenant-' || (i %% %(tenants)s + 2) end)) t (tenant)
), made as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, attempt, first_sent_at, policy,
                         provider, provider_ref, outcome, amount, currency, created_at, settled_at, failed)
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
           case when kind = 'charge' then 'eur' end, at, at + interval '2 seconds', failed
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
           'tenant-' || (i %% %(tenants)s + 2), 'charge', 'waiting:' || i, encode(sha256(i::text::bytea), 'hex'),
           '{"amount": 4200, "currency": "eur", "payment_method": "pm_1"}', 'pending', 'at_most_once', 4200, 'eur'
    from generate_series(%(first)s::bigint, %(last)s::bigint) i returning id
), facts as (
    insert into journal (effect_id, fact, attempt, actor) select id, 'accepted', 0, 'bench' from made
)
insert into outbox (effect_id, kind, lane, road, available_at)
select id, 'charge', 'charge', case when row_number() over () %% %(later_each)s = 0 then 'later' else 'fresh' end,
       case when row_number() over () %% %(later_each)s = 0 then now() + interval '1 hour' else now() end
from made
"""


# A ledger of so many days has had its journal by months.
MONTHS = """
set timezone = 'UTC';
do $$ declare month timestamptz := date_trunc('month', now() - interval '300 days');
begin
    alter table journal detach partition journal_first;
    execute format('alter table journal attach partition journal_first for values from (minvalue) to (%L)', month);
    while to_regclass(to_char(month, '"journal_"YYYY"_"MM')) is null loop
        execute format('create table %I partition of journal for values from (%L) to (%L)',
                       to_char(month, '"journal_"YYYY"_"MM'), month, month + interval '1 month');
        month := month + interval '1 month';
    end loop;
end $$
"""
# Written anew by each test of size: nothing of it has to survive a crash.
UNHURRIED = "set synchronous_commit = off"


def fill(url: str, insert: str, rows: int, what: str, *, large: bool) -> None:
    """Write `rows` rows of a sort, a batch a commit, over some connections."""
    shares = {
        "tenants": TENANTS if large else 1,
        "small_each": 1000 if large else 17,
        "clean_each": 100 if large else 11,
        "later_each": 5 if large else 1,
    }
    firsts, lock, began, done = iter(range(0, rows, BATCH)), Lock(), time.monotonic(), count(1)

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(UNHURRIED)
            while True:
                with lock:
                    first = next(firsts, None)
                if first is None:
                    return
                last = min(first + BATCH, rows) - 1
                connection.execute(insert, {"first": first, "last": last, "total": rows, **shares})
                with lock:
                    written = min(next(done) * BATCH, rows)
                    rate = written / (time.monotonic() - began)
                    print(f"\r{written:>11,} of {rows:,} {what}, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for writer in [pool.submit(write) for _ in range(CONNECTIONS)]:
            writer.result()
    print(file=sys.stderr)
