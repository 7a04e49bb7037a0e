"""What an audit of many effects costs: seconds, and the peak memory of the process that audits.

    python -m benchmarks.audit [effects …]        default: 10000 100000

Plants charges on both sides (a settled effect with its journal here, a PaymentIntent with charge, balance line and
events at the fake Stripe), then runs `counterfoil audit` as a process of its own and reads what the kernel says of it.
Flat memory: the peak at 100,000 effects is about that at 10,000.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from uuid_utils import uuid7

from service.core.keys import fingerprint
from service.embedded.servers import Servers

ROOT = Path(__file__).resolve().parents[1]
PLANTED_AT_ONCE = 1000
WINDOW_DAYS = 20  # events go back thirty days (Stripe: List all events)


@contextmanager
def fake(state: Path) -> Iterator[dict[str, Any]]:
    """The fake Stripe as a process; yields its addresses."""
    command = [sys.executable, "-m", "fakes", "stripe", "--state", str(state)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    try:
        yield json.loads(child.stdout.readline())
    finally:
        child.terminate()
        child.wait(20)


def plant(admin: str, wishes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """PaymentIntents at the fake; their ids."""
    body = json.dumps({"intents": wishes}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{admin}/_fake/plant", body), timeout=300) as answer:
        planted: list[dict[str, Any]] = json.load(answer)["planted"]
    return planted


def both_sides(connection: psycopg.Connection, admin: str, count: int, number: int) -> None:
    """`count` settled charges, spread over the window."""
    began = datetime.now(UTC) - timedelta(days=WINDOW_DAYS)
    step = timedelta(days=WINDOW_DAYS - 1) / count
    times = [began + step * i for i in range(count)]
    ids = [str(uuid7()) for _ in range(count)]
    wishes = [
        {"amount": 4200, "created": int(at.timestamp()), "key": f"{own}:create", "metadata": {"effect_id": own}}
        for own, at in zip(ids, times, strict=True)
    ]
    planted = plant(admin, wishes)
    request = json.dumps({"amount": 4200, "currency": "eur", "payment_method": "pm_1"})
    mark = fingerprint("charge", {"amount": 4200})
    effects = (
        "copy effects (id, tenant, kind, dedupe_key, fingerprint, request, state, attempt, first_sent_at, policy,"
        " provider, provider_ref, outcome, amount, currency, created_at, settled_at) from stdin"
    )
    with connection.cursor().copy(effects) as copy:
        for i, (own, at) in enumerate(zip(ids, times, strict=True)):
            copy.write_row((
                own, "default", "charge", f"order:{number}:{i}", mark, request, "succeeded", 1, at, "at_most_once",
                "stripe", planted[i]["payment_intent"], "{}", 4200, "eur", at, at + timedelta(seconds=2),
            ))  # fmt: skip
    with connection.cursor().copy("copy journal (effect_id, at, fact, attempt, actor) from stdin") as copy:
        for own, at in zip(ids, times, strict=True):
            for fact in ("accepted", "claimed", "progressed", "succeeded"):
                copy.write_row((own, at, fact, 0 if fact == "accepted" else 1, "bench"))


def audit(env: dict[str, str]) -> tuple[dict[str, Any], float, float]:
    """Run it; its report, wall seconds, and peak RSS in MiB."""
    began = time.monotonic()
    command = [sys.executable, "-m", "service", "audit", "--since", f"{WINDOW_DAYS + 1}d", "--lag", "0", "--json"]
    child = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    report = json.loads(child.stdout.read())
    # As `resource.getrusage` would say of it, for this child alone (kilobytes on Linux).
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return report, time.monotonic() - began, usage.ru_maxrss / 1024


def measure(counts: list[int]) -> None:
    """Grow one ledger to each of `counts`, and audit the whole of it each time."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as folder:
        state = Path(folder)
        with Servers(state / "state", valkey=False, quick=True) as servers, fake(state / "stripe") as stripe:
            url = str(servers.addresses.database_url)
            env = {
                **os.environ,
                "COUNTERFOIL_DATABASE_URL": url,
                "COUNTERFOIL_STRIPE_API_KEY": "sk_test_bench",
                "COUNTERFOIL_STRIPE_API_BASE": stripe["url"],
            }
            subprocess.run([sys.executable, "-m", "service", "db", "upgrade"], cwd=ROOT, env=env, check=True)
            planted = 0
            with psycopg.connect(url, autocommit=True) as connection:
                for count in counts:
                    while planted < count:
                        some = min(PLANTED_AT_ONCE, count - planted)
                        both_sides(connection, stripe["admin_url"], some, planted)
                        planted += some
                    connection.execute("analyze")
                    report, seconds, peak = audit(env)
                    assert report["ok"], report["classes"]
                    assert report["effects_by_money_objects"] == {"1": count}
                    print(
                        f"{count:>8} effects  {seconds:7.1f} s  {count / seconds:7.0f} effects/s  "
                        f"peak RSS {peak:6.1f} MiB  objects read {sum(report['seen'].values())}",
                        flush=True,
                    )


if __name__ == "__main__":
    measure([int(count) for count in sys.argv[1:]] or [10_000, 100_000])
