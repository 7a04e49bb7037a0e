"""Throughput, latency, CPU, commits and WAL of a whole effect, beside a bare Celery task with the same provider call.

    python -m benchmarks.end_to_end [--effects 2000] [--rounds 3] [--json]

Two pairs, each in alternated rounds on the same machine, broker and provider (10 ms an answer):

    mail    one keyed call       bare: one Celery task = one POST through the same HTTP client
    charge  create and confirm   bare: one Celery task = one SDK call that creates and confirms at once

A round runs from the first accept (or publish) to the last settled effect (or answered call); four threads accept, one
worker process performs 32 at a time. The counters include everything but the provider, the accepting process too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.measure import Cost, cost, percentile
from service.embedded.address import Addresses
from service.embedded.servers import Servers

DELAY_SECONDS = 0.01
ACCEPTING_THREADS = 4
CONCURRENCY = 32
QUIET_PER_SECOND = 40
QUIET_SECONDS = 10.0
ROUND_LIMIT_SECONDS = 180.0


@dataclass
class Round:
    """One contestant's round of `effects`: seconds, what it cost, and calls seen more than once."""

    effects: int
    seconds: float
    cost: Cost
    repeated: int

    @property
    def rate(self) -> float:
        """Effects a second."""
        return self.effects / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds an effect."""
        return 1000 * self.cost.cpu / self.effects


class Bench:
    """The running system and its counters."""

    def __init__(self, port: int, database_url: str, pids: list[int]) -> None:
        self.port = port
        self.connection = psycopg.connect(database_url, autocommit=True)
        self.pids = pids

    def calls(self) -> dict[str, int]:
        """Calls the provider has answered, by step and key."""
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        link.request("GET", "/calls")
        found: dict[str, int] = json.loads(link.getresponse().read())
        link.close()
        return found

    def round(self, effects: int, send: Callable[[int], object], done: Callable[[], int]) -> Round:
        """Send `effects` from four threads and wait until `done()` has grown by as many."""
        target = done() + effects
        before_calls = self.calls()
        before = cost(self.connection, self.pids)
        start = time.perf_counter()
        with ThreadPoolExecutor(ACCEPTING_THREADS) as threads:
            list(threads.map(send, range(effects)))
        while done() < target:
            if time.perf_counter() - start > ROUND_LIMIT_SECONDS:
                raise SystemExit(f"a round did not end within {ROUND_LIMIT_SECONDS:.0f} s: {done()} of {target}")
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        spent = cost(self.connection, self.pids).since(before)
        repeated = sum(n - 1 for key, n in self.calls().items() if n > 1 and key not in before_calls)
        return Round(effects, seconds, spent, repeated)

    def settled(self) -> int:
        """Settled effects; through a counter that costs nothing: the outbox is empty when all is done."""
        row = self.connection.execute("select (select count(*) from effects where settled_at is not null)").fetchone()
        assert row is not None
        return int(row[0])


def send_mail(i: int) -> None:
    """Accept one keyed e-mail in a transaction of its own."""
    from tasks import email

    email.apply_async(kwargs={"to": "ada@example.test", "subject": "Hello", "text": f"Letter {i}"}, dedupe_key=_key(i))


def send_charge(i: int) -> None:
    """Accept one charge in a transaction of its own."""
    from tasks import charge

    charge.apply_async(kwargs={"amount": 4200, "currency": "eur", "payment_method": "pm_1"}, dedupe_key=_key(i))


def send_bare_mail(i: int) -> None:
    """Publish one bare task."""
    from benchmarks.bare import mail

    body = {"to": ["ada@example.test"], "from": "receipts@localhost.test", "subject": "Hello", "text": f"Letter {i}"}
    mail.delay(_key(i), json.dumps(body))


def send_bare_charge(i: int) -> None:
    """Publish one bare task that uses the SDK."""
    from benchmarks.bare import pay

    pay.delay(_key(i), {"amount": 4200, "currency": "eur", "payment_method": "pm_1", "confirm": True})


def _key(i: int) -> str:
    return f"{time.time_ns():x}:{i}"


def environment(addresses: Addresses, state: Path, port: int) -> dict[str, str]:
    """What every process is told."""
    return {
        "COUNTERFOIL_DATABASE_URL": str(addresses.database_url),
        "COUNTERFOIL_BROKER_URL": str(addresses.broker_url),
        "COUNTERFOIL_STRIPE_API_KEY": "sk_test_bench",
        "COUNTERFOIL_STRIPE_API_BASE": f"http://127.0.0.1:{port}",
        "COUNTERFOIL_EMAIL_URL": f"resend+http://bench@127.0.0.1:{port}",
        "COUNTERFOIL_SLOTS": str(CONCURRENCY),
        "COUNTERFOIL_LOG_LEVEL": "WARNING",
        "COUNTERFOIL_STATE_DIR": str(state),
        "BENCH_PROVIDER": f"http://127.0.0.1:{port}",
    }


@contextmanager
def system(state: Path) -> Iterator[Bench]:
    """Postgres, Valkey, the provider, one relay, one worker of ours and one bare worker."""
    with ExitStack() as stack:
        servers = stack.enter_context(Servers(state))
        addresses = servers.addresses
        provider = stack.enter_context(_process(["-m", "benchmarks.provider", str(DELAY_SECONDS)], {}, pipe=True))
        assert provider.stdout is not None
        port = int(provider.stdout.readline())
        env = environment(addresses, state, port)
        os.environ.update(env)
        subprocess.run(
            [sys.executable, "-m", "service", "db", "upgrade"], check=True, env=os.environ, stdout=sys.stderr
        )
        ours = [
            stack.enter_context(_process(["-m", "service", "relay"], env)),
            stack.enter_context(_process(["-m", "service", "worker"], env)),
            stack.enter_context(
                _process(
                    [
                        "-m",
                        "celery",
                        "-A",
                        "benchmarks.bare",
                        "worker",
                        "-P",
                        "threads",
                        "-c",
                        str(CONCURRENCY),
                        "-Q",
                        "bare",
                        "-l",
                        "WARNING",
                        "--without-gossip",
                        "--without-mingle",
                    ],
                    env,
                )
            ),
        ]
        pids = [p.pid for p in ours] + [servers.postgres.pid, servers.valkey.pid]
        yield Bench(port, str(addresses.database_url), [pid for pid in pids if pid])


@contextmanager
def _process(args: list[str], env: dict[str, str], *, pipe: bool = False) -> Iterator[subprocess.Popen[str]]:
    out = subprocess.PIPE if pipe else sys.stderr
    process = subprocess.Popen([sys.executable, *args], env={**os.environ, **env}, stdout=out, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def quiet(bench: Bench) -> dict[str, float]:
    """Latency from accept to settled (milliseconds, by the database's clock) at a low, even load."""
    first = bench.connection.execute("select now()").fetchone()
    pause, start = 1 / QUIET_PER_SECOND, time.perf_counter()
    count = int(QUIET_PER_SECOND * QUIET_SECONDS)
    for i in range(count):
        time.sleep(max(0.0, start + i * pause - time.perf_counter()))
        send_mail(i)
    while bench.connection.execute("select 1 from outbox limit 1").fetchone():
        time.sleep(0.02)
    rows = bench.connection.execute(
        "select extract(epoch from settled_at - created_at)::float8 * 1000 from effects where created_at >= %s", first
    ).fetchall()
    waits = [row[0] for row in rows]
    return {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "effects": len(waits)}


def duel(
    bench: Bench, effects: int, rounds: int, ours: Callable[[int], object], bare: Callable[[int], object]
) -> dict[str, object]:
    """Alternate rounds of both; the report is the median of the ratios within each pair of rounds."""
    mine: list[Round] = []
    theirs: list[Round] = []
    bench.round(200, bare, lambda: sum(bench.calls().values()))  # warm both up
    bench.round(200, ours, bench.settled)
    for _ in range(rounds):
        theirs.append(bench.round(effects, bare, lambda: sum(bench.calls().values())))
        mine.append(bench.round(effects, ours, bench.settled))
    ratios = [m.rate / t.rate for m, t in zip(mine, theirs, strict=True)]
    cpu = [m.cpu_ms / t.cpu_ms for m, t in zip(mine, theirs, strict=True)]
    return {
        "throughput_ratio": statistics.median(ratios),
        "throughput_ratio_range": [min(ratios), max(ratios)],
        "cpu_ratio": statistics.median(cpu),
        "effects_per_second": statistics.median(m.rate for m in mine),
        "bare_per_second": statistics.median(t.rate for t in theirs),
        "cpu_ms_per_effect": statistics.median(m.cpu_ms for m in mine),
        "bare_cpu_ms": statistics.median(t.cpu_ms for t in theirs),
        "commits_per_effect": statistics.median(m.cost.commits / m.effects for m in mine),
        "wal_bytes_per_effect": statistics.median(m.cost.wal / m.effects for m in mine),
        "repeated_calls": sum(m.repeated for m in mine),
    }


def main() -> None:
    """Run both duels and the quiet measurement, print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as state, system(Path(state)) as bench:
        report = {
            "mail": duel(bench, options.effects, options.rounds, send_mail, send_bare_mail),
            "quiet": quiet(bench),
            "charge": duel(bench, options.effects // 2, options.rounds, send_charge, send_bare_charge),
            "provider_ms": DELAY_SECONDS * 1000,
        }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, figures in report.items():
            print(f"{name}: {json.dumps(figures)}")


if __name__ == "__main__":
    main()
