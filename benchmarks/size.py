"""What a large ledger costs: accept, take, claim, settle, list and show, beside the same on an empty system.

    python -m benchmarks.size [--settled 10000000] [--waiting 100000] [--rounds 15] [--json FILE]

Two databases of one server, one process each, in alternated rounds. The empty one has a few thousand settled effects (a
page of each sort must be full on both sides), the other as many as asked for, spread over 300 days and a hundred
tenants, with their journal by months; and a backlog that waits. They are written by SQL with all constraints on. The
promise: no median is more than 1.5 times that of the empty system.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain, count, cycle
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection
from uuid_utils import uuid7

from benchmarks.size_lists import LISTED, PAGE, ago, lists
from benchmarks.size_rows import DAYS as LEDGER_DAYS
from benchmarks.size_rows import MONTHS, SEED_SETTLED, SEED_WAITING, SETTLED, WAITING, fill
from service.core.effect import Order, Policy
from service.core.keys import fingerprint
from service.core.state import State
from service.embedded.servers import Servers
from service.engine.accept import accept_alone
from service.store import attempts, effects, journal, listing, outbox
from service.store.attempts import Limits, Settlement
from service.store.database import statement
from service.store.glance import glance

ROOT = Path(__file__).resolve().parents[1]
PROMISED_RATIO = 1.5
REPEATS = 100
LOOKS = 40
MESSAGE = 32
TAKEN = 3 * MESSAGE

# For the writing of millions of rows: checkpoints by the quarter of an hour, not by the gigabyte. Both sides have them.
# And no autovacuum, which would work on the large one only, and through its whole measuring.
FILLING = ("max_wal_size = '16GB'", "checkpoint_timeout = '15min'", "autovacuum = off")


# --- one database, in a process of its own --------------------------------------------------------------------------


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each call."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times


def one_round(number: int) -> Iterator[tuple[str, float]]:
    """The milliseconds of each operation on this process's database, one after the other.

    The lower quartile of its calls: on a small machine a call in which the scheduler let both its processes wait takes
    five times as long, and how many do differs by chance from side to side.
    """
    for name, values in chain(writing(number), reading()):
        yield name, statistics.quantiles(values, n=4)[0]


def writing(number: int) -> Iterator[tuple[str, list[float]]]:
    """Accept, take, claim and settle."""
    request = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
    mark, made = fingerprint("charge", request), count()

    def order() -> Order:
        return Order(
            id=str(uuid7()), tenant="tenant-1", kind="charge", dedupe_key=f"bench:{number}:{next(made)}",
            fingerprint=mark, request=request, lane="charge", policy=Policy.AT_MOST_ONCE, amount=4200, currency="eur",
        )  # fmt: skip

    yield "accept one", timed(lambda: accept_alone([order()], actor="bench"), REPEATS)
    yield "accept 100", timed(lambda: accept_alone([order() for _ in range(100)], actor="bench"), 8)
    taken: list[str] = []
    with statement() as connection:

        def take() -> None:
            taken.extend(row.effect_id for row in outbox.take(connection, TAKEN, 105.0))

        yield f"take {TAKEN}", timed(take, 8)
        messages = [taken[start : start + MESSAGE] for start in range(0, len(taken), MESSAGE)]
        some = iter(messages)
        yield f"claim and settle {MESSAGE}", timed(lambda: perform(connection, next(some)), len(messages))


def perform(connection: Connection, ids: list[str]) -> None:
    """What a worker's database work for one message is."""
    claimed = attempts.claim(connection, ids, Limits(90.0, 60, 3 * 86400.0), actor="bench")
    done = [
        Settlement(
            id=a.id, attempt=a.number, state=State.SUCCEEDED, fact="succeeded", in_doubt=False,
            outcome={"charge": "ch"}, provider="stripe", provider_ref=f"pi_{a.id}",
        )
        for a in claimed
    ]  # fmt: skip
    attempts.settle(connection, done, actor="bench")


def reading() -> Iterator[tuple[str, list[float]]]:
    """The window, every sort of list, effects with their journal."""
    for name, ask in lists().items():
        yield name, timed(ask, LOOKS)
    page = listing.page(listing.Filters(LISTED, state="succeeded"), after=None, limit=20)
    old = listing.page(listing.Filters(LISTED, created_until=ago(LEDGER_DAYS - 20)), after=None, limit=20)
    with statement() as connection:
        for name, rows in (("show with journal", page), ("show an old one", old)):
            shown = cycle(row["id"] for row in rows)
            yield name, timed(lambda shown=shown: show(connection, next(shown)), LOOKS)  # type: ignore[misc]
        for state in ("failed", "parked"):
            ask = partial(effects.page, connection, {"state": state}, after=None, limit=PAGE)
            yield f"command: list {state}", timed(ask, LOOKS)
        yield "window", timed(lambda: glance(connection), LOOKS)


def show(connection: Connection, effect_id: str) -> None:
    """What `effects show` reads."""
    row = effects.get(connection, effect_id) or {}
    journal.of(connection, effect_id, since=row["created_at"])


def serve() -> None:
    """A line in, one operation of the round that it names out: the other process has its turn in between."""
    for line in sys.stdin:
        for found in one_round(int(line)):
            print(json.dumps(found), flush=True)
            sys.stdin.readline()
        print("null", flush=True)


# --- both -----------------------------------------------------------------------------------------------------------


class Contestant:
    """A process that measures one database."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "COUNTERFOIL_DATABASE_URL": url}
        command = [sys.executable, "-m", "benchmarks.size", "--serve"]
        self._child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def next(self, number: int) -> tuple[str, float] | None:
        """The next operation of a round and its milliseconds; None at its end."""
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(f"{number}\n")
        self._child.stdin.flush()
        answer: tuple[str, float] | None = json.loads(self._child.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        assert self._child.stdin
        self._child.stdin.close()
        self._child.wait(30)


def one_after_the_other(both: Mapping[str, Contestant], number: int) -> dict[str, dict[str, float]]:
    """A round: each operation on one side and then at once on the other, so that both meet the same weather."""
    seen: dict[str, dict[str, float]] = {name: {} for name in both}
    first = list(both) if number % 2 else list(both)[::-1]
    while True:
        found = {name: both[name].next(number) for name in first}
        for name, one in found.items():
            if one is None:
                return seen
            seen[name][one[0]] = one[1]


def prepare(admin: str, name: str, settled: int, waiting: int, *, large: bool) -> str:
    """A migrated database with so many rows; its URL."""
    url = admin.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    environment = {**os.environ, "COUNTERFOIL_DATABASE_URL": url}
    upgrade = "from service.store import schema; schema.upgrade()"
    subprocess.run([sys.executable, "-c", upgrade], cwd=ROOT, env=environment, check=True)
    if large:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(MONTHS)
    fill(url, SETTLED, settled, "settled", large=large)
    fill(url, WAITING, waiting, "waiting", large=large)
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
            with psycopg.connect(servers.postgres.superuser_url, autocommit=True) as connection:
                for setting in FILLING:
                    connection.execute(f"alter system set {setting}")
                connection.execute("select pg_reload_conf()")
            urls = {
                "empty": prepare(admin, "bench_empty", SEED_SETTLED, SEED_WAITING, large=False),
                "full": prepare(admin, "bench_full", settled, waiting, large=True),
            }
            with psycopg.connect(urls["full"]) as connection:
                [size] = connection.execute("select pg_database_size(current_database())").fetchone() or [0]
            both = {name: Contestant(url) for name, url in urls.items()}
            try:
                one_after_the_other(both, 0)  # connections, prepared plans, caches
                seen = [one_after_the_other(both, number) for number in range(1, rounds + 1)]
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
    asked = argparse.ArgumentParser()
    asked.add_argument("--settled", type=int, default=10_000_000)
    asked.add_argument("--waiting", type=int, default=100_000)
    asked.add_argument("--rounds", type=int, default=15)
    asked.add_argument("--json", type=Path, help="write the figures there")
    asked.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.serve:
        serve()
        return 0
    found = measure(options.settled, options.waiting, options.rounds)
    size = f"{found['bytes'] / 2**30:.1f} GiB"
    print(f"{found['settled']:,} settled and {found['waiting']:,} waiting ({size}), {found['rounds']} rounds")
    print(f"{'':32}{'empty ms':>10}{'full ms':>10}{'ratio':>8}")
    for name, row in found["operations"].items():
        print(f"{name:32}{row['empty_ms']:>10.2f}{row['full_ms']:>10.2f}{row['ratio']:>8.2f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    worst = max(row["ratio"] for row in found["operations"].values())
    print(f"worst ratio {worst:.2f}, promised {PROMISED_RATIO}")
    return int(worst > PROMISED_RATIO)


if __name__ == "__main__":
    sys.exit(main())
