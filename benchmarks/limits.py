"""What provider limits cost when they limit nothing: the same work with the bucket on and off, in turns, in one run.

python -m benchmarks.limits [--effects 2000] [--rounds 5] [--backlog 100000]

worker  charges a second through the executor, its real claim and the real Stripe client, against a provider that
        answers at once; `on` has a bucket that never runs dry
relay   milliseconds to take 32 rows while `backlog` charges wait: `plain` is `outbox.take`, `paced` the take of a
        relay under limits, which finds ten urgent letters behind a limited backlog
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uuid_utils import uuid7

from service.core.effect import Order, Policy
from service.core.keys import fingerprint
from service.embedded.servers import Servers

MESSAGE = 32
THREADS = 4
MANY = 1_000_000.0


def order(i: int) -> Order:
    """A charge, as the task makes it."""
    request = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
    key = f"{time.time_ns():x}:{i}"
    mark = fingerprint("charge", request)
    return Order(
        str(uuid7()),
        "default",
        "charge",
        key,
        mark,
        request,
        "charge",
        Policy.AT_MOST_ONCE,
        amount=4200,
        currency="eur",
    )


def worker(effects: int, rounds: int) -> dict[str, object]:
    """Throughput with and without, in alternated rounds."""
    from service import settings
    from service.engine.accept import accept_alone
    from service.engine.execute import Executor
    from service.engine.kind import Kind
    from service.providers.build import charge_provider

    found = settings.load()
    stripe = charge_provider(found)
    kind = Kind("charge", provider=lambda: stripe)

    def one(rate: float) -> float:
        executor = Executor(found.model_copy(update={"stripe_rate": rate}), actor="bench")
        ids = [answer.id for answer in accept_alone([order(i) for i in range(effects)], actor="bench")]
        messages = [ids[i : i + MESSAGE] for i in range(0, len(ids), MESSAGE)]
        start = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            claimed = sum(report.claimed for report in threads.map(lambda m: executor.run(kind, m), messages))
        if claimed != effects:
            raise SystemExit(f"{claimed} of {effects} were claimed")
        return effects / (time.perf_counter() - start)

    one(MANY)
    one(0.0)
    pairs = [(one(MANY), one(0.0)) for _ in range(rounds)]
    ratios = [on / off for on, off in pairs]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "on_per_second": round(statistics.median(on for on, _ in pairs)),
        "off_per_second": round(statistics.median(off for _, off in pairs)),
    }


def relay(backlog: int, rounds: int) -> dict[str, object]:
    """How long one take lasts."""
    from service.engine.accept import accept_alone
    from service.engine.pace import COSTS
    from service.store import buckets, outbox, paced
    from service.store.buckets import Bucket
    from service.store.database import statement

    for i in range(0, backlog, 5000):
        accept_alone([order(i + k) for k in range(5000)], actor="bench")
    plain, limited = [], []
    with statement() as connection:
        connection.exec_driver_sql("analyze outbox")
        buckets.put(connection, Bucket("stripe test", COSTS, 2.0 * MESSAGE, 4.0))
        for _ in range(rounds * 10):
            plain.append(_milliseconds(lambda: outbox.take(connection, MESSAGE, 105.0)))
            # As if all that was published had begun, so that the next take finds as much room.
            connection.exec_driver_sql(
                "update outbox set available_at = now() + interval '50 s' where road = 'published'"
            )
            limited.append(_milliseconds(lambda: paced.take(connection, MESSAGE, 105.0)))
            connection.exec_driver_sql(
                "update outbox set available_at = now() + interval '50 s' where road = 'published'"
            )
    return {
        "backlog": backlog,
        "plain_ms": round(statistics.median(plain), 2),
        "paced_ms": round(statistics.median(limited), 2),
    }


def _milliseconds(work: object) -> float:
    start = time.perf_counter()
    if len(work()) != MESSAGE:  # type: ignore[operator]
        raise SystemExit("a take found less than there is")
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Run both and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as state, Servers(Path(state)) as servers:
        provider = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.provider", "0"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert provider.stdout is not None
            os.environ.update(
                COUNTERFOIL_DATABASE_URL=str(servers.addresses.database_url),
                COUNTERFOIL_STRIPE_API_KEY="sk_test_bench",
                COUNTERFOIL_STRIPE_API_BASE=f"http://127.0.0.1:{int(provider.stdout.readline())}",
                COUNTERFOIL_STATE_DIR=state,
                COUNTERFOIL_LOG_LEVEL="WARNING",
            )
            from service import settings
            from service.store import schema
            from service.telemetry import logs

            schema.upgrade()
            logs.configure(settings.load(), process="bench")
            print("worker:", json.dumps(worker(options.effects, options.rounds)))
            print("relay:", json.dumps(relay(options.backlog, options.rounds)))
        finally:
            provider.terminate()
            provider.wait(30)


if __name__ == "__main__":
    main()
