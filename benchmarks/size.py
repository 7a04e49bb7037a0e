"""What a large ledger costs: accept, take, claim, settle, list and show, beside the same on an empty system.

    python -m benchmarks.size [--settled 10000000] [--waiting 100000] [--rounds 7] [--json FILE]

Two databases of one server, one process each, in alternated rounds. The empty one has 1,000 settled effects (a page
must be full on both sides), the other as many as asked for, spread over 300 days and a hundred tenants, with their
journal; and a backlog that waits. They are written by SQL with all constraints on. The promise: no median is more than
1.5 times that of the empty system.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from service.embedded.servers import Servers

ROOT = Path(__file__).resolve().parents[1]
BATCH = 100_000
SEED_SETTLED = 1_000
PROMISED_RATIO = 1.5
REPEATS = 100
TAKEN = 96  # three messages of 32
ROUND_SECONDS_MAX = 300.0

_SETTLED = """
with rows as (
    select i, now() - interval '300 days' * (1 - (i + 0.5) / %(total)s) as at, i %% 20 = 0 as failed,
           case when i %% 10 < 7 then 'charge' else 'email' end as kind,
           case when i %% 1000 = 7 then 'small' else 'tenant-' || (i %% 97) end as tenant
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

_WAITING = """
with made as (
    insert into effects (id, tenant, kind, dedupe_key, fingerprint, request, state, policy, amount, currency)
    select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(i %% 4096), 3, '0')
            || '9' || lpad(to_hex(i), 15, '0'))::uuid,
           'tenant-' || (i %% 97), 'charge', 'waiting:' || i, encode(sha256(i::text::bytea), 'hex'),
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


def fill(url: str, statement: str, count: int, what: str) -> None:
    """Write `count` rows of a sort, a batch a commit."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        for first in range(0, count, BATCH):
            last = min(first + BATCH, count) - 1
            connection.execute(statement, {"first": first, "last": last, "total": count})
            if count > BATCH:
                rate = (last + 1) / (time.monotonic() - began)
                print(f"\r{last + 1:>11,} of {count:,} {what}, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)
    if count > BATCH:
        print(file=sys.stderr)


# --- one database, in a process of its own --------------------------------------------------------------------------


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times


def one_round(number: int) -> dict[str, float]:
    """The median milliseconds of each operation on this process's database."""
    from uuid_utils import uuid7

    from service.core.effect import Order, Policy
    from service.core.keys import fingerprint
    from service.core.state import State
    from service.engine.accept import accept_alone
    from service.store import attempts, effects, journal, listing, outbox
    from service.store.attempts import Limits, Settlement
    from service.store.database import statement

    request = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
    mark, limits = fingerprint("charge", request), Limits(90.0, 60, 3 * 86400.0)
    made = iter(range(10**9))

    def order() -> Order:
        return Order(
            id=str(uuid7()), tenant="tenant-1", kind="charge", dedupe_key=f"bench:{number}:{next(made)}",
            fingerprint=mark, request=request, lane="charge", policy=Policy.AT_MOST_ONCE, amount=4200, currency="eur",
        )  # fmt: skip

    times: dict[str, list[float]] = {}
    times["accept one"] = timed(lambda: accept_alone([order()], actor="bench"), REPEATS)
    times["accept 100"] = timed(lambda: accept_alone([order() for _ in range(100)], actor="bench"), 5)
    with statement() as connection:
        for _ in range(5):
            began = time.perf_counter()
            taken = outbox.take(connection, TAKEN, 105.0)
            times.setdefault(f"take {TAKEN}", []).append((time.perf_counter() - began) * 1000)
            ids = [row.effect_id for row in taken]
            for start in range(0, len(ids), 32):
                began = time.perf_counter()
                claimed = attempts.claim(connection, ids[start : start + 32], limits, actor="bench")
                done = [
                    Settlement(
                        id=a.id, attempt=a.number, state=State.SUCCEEDED, fact="succeeded", in_doubt=False,
                        outcome={"charge": "ch"}, provider="stripe", provider_ref=f"pi_{a.id}",
                    )
                    for a in claimed
                ]  # fmt: skip
                attempts.settle(connection, done, actor="bench")
                times.setdefault("claim and settle 32", []).append((time.perf_counter() - began) * 1000)
        times["window"] = timed(lambda: outbox.in_flight(connection), 20)
    lists = {
        "list a tenant": listing.Filters(tenant="tenant-1"),
        "list a small tenant": listing.Filters(tenant="small"),
        "list by kind": listing.Filters(tenant="tenant-1", kind="email"),
        "list failed": listing.Filters(tenant="tenant-1", state="failed"),
        "list pending": listing.Filters(tenant="tenant-1", state="pending"),
    }
    for name, filters in lists.items():
        times[name] = timed(lambda filters=filters: listing.page(filters, after=None, limit=50), 20)  # type: ignore[misc]
    with statement() as connection:
        some = [row["id"] for row in listing.page(listing.Filters(tenant="tenant-1"), after=None, limit=20)]
        shown = iter(some * 10)

        def show() -> None:
            one = next(shown)
            effects.get(connection, one)
            journal.of(connection, one)

        times["show with journal"] = timed(show, 20)
    return {name: statistics.median(values) for name, values in times.items()}


def serve() -> None:
    """Rounds on demand: a number in, a line of JSON out."""
    for line in sys.stdin:
        print(json.dumps(one_round(int(line))), flush=True)


# --- both -----------------------------------------------------------------------------------------------------------


class Contestant:
    """A process that measures one database."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "COUNTERFOIL_DATABASE_URL": url}
        command = [sys.executable, "-m", "benchmarks.size", "--serve"]
        self._child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self, number: int) -> dict[str, float]:
        """One round."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(f"{number}\n")
        self._child.stdin.flush()
        answer: dict[str, float] = json.loads(self._child.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        assert self._child.stdin
        self._child.stdin.close()
        self._child.wait(30)


def prepare(admin: str, name: str, settled: int, waiting: int) -> str:
    """A migrated database with so many rows; its URL."""
    url = admin.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    environment = {**os.environ, "COUNTERFOIL_DATABASE_URL": url}
    upgrade = "from service.store import schema; schema.upgrade()"
    subprocess.run([sys.executable, "-c", upgrade], cwd=ROOT, env=environment, check=True)
    fill(url, _SETTLED, settled, "settled")
    fill(url, _WAITING, waiting, "waiting")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
    return url


def measure(settled: int, waiting: int, rounds: int) -> dict[str, Any]:
    """Fill both and compare them."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="counterfoil-bench-"))
        with Servers(Path(folder) / "state", valkey=False, quick=True) as servers:
            admin = servers.postgres.database_url("postgres")
            urls = {
                "empty": prepare(admin, "bench_empty", SEED_SETTLED, 0),
                "full": prepare(admin, "bench_full", settled, waiting),
            }
            with psycopg.connect(urls["full"]) as connection:
                [size] = connection.execute("select pg_database_size(current_database())").fetchone() or [0]
            both = {name: Contestant(url) for name, url in urls.items()}
            try:
                for one in both.values():
                    one.round(0)  # connections, prepared plans, caches
                seen = [{name: one.round(number) for name, one in both.items()} for number in range(1, rounds + 1)]
            finally:
                for one in both.values():
                    one.close()
    found = {
        name: {
            "empty_ms": round(statistics.median(r["empty"][name] for r in seen), 3),
            "full_ms": round(statistics.median(r["full"][name] for r in seen), 3),
            "ratio": round(statistics.median(r["full"][name] / r["empty"][name] for r in seen), 2),
        }
        for name in seen[0]["full"]
    }
    return {"settled": settled, "waiting": waiting, "rounds": rounds, "bytes": size, "operations": found}


def main() -> int:
    """Measure, print, and say whether the promise holds."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--settled", type=int, default=10_000_000)
    asked.add_argument("--waiting", type=int, default=100_000)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--json", type=Path, help="write the figures there")
    asked.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.serve:
        serve()
        return 0
    found = measure(options.settled, options.waiting, options.rounds)
    size = f"{found['bytes'] / 2**30:.1f} GiB"
    print(f"{found['settled']:,} settled and {found['waiting']:,} waiting ({size}), {found['rounds']} rounds")
    print(f"{'':24}{'empty ms':>10}{'full ms':>10}{'ratio':>8}")
    for name, row in found["operations"].items():
        print(f"{name:24}{row['empty_ms']:>10.2f}{row['full_ms']:>10.2f}{row['ratio']:>8.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    worst = max(row["ratio"] for row in found["operations"].values())
    print(f"worst ratio {worst:.2f}, promised {PROMISED_RATIO}")
    return int(worst > PROMISED_RATIO)


if __name__ == "__main__":
    sys.exit(main())
