"""pgqueuer: a job with a deduplication key; a job whose heartbeat is stale is picked again by any worker.

pgqueuer docs, "Reliability Model" (dedupe_key, worker-crash recovery) and "Heartbeat Monitoring". The deduplication
key, "a stable, business-meaningful identifier", is the name passed on to the provider.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta

import asyncpg
import psycopg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.peers import provider

DATABASE = os.environ["PEERS_DATABASE"]
ENDS = {"successful": "finished", "exception": "failed", "canceled": "failed", "deleted": "failed"}


def prepare() -> None:
    """`pgq install`."""

    async def install() -> None:
        connection = await asyncpg.connect(DATABASE)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    asyncio.run(install())


def submit(key: str, amount: int) -> str:
    """Enqueue under the deduplication key."""

    async def enqueue() -> str:
        connection = await asyncpg.connect(DATABASE)
        payload = json.dumps({"order": key, "amount": amount}).encode()
        ids = await Queries(AsyncpgDriver(connection)).enqueue("charge", payload, dedupe_key=key)
        await connection.close()
        return f"accepted as job {ids[0]}"

    return asyncio.run(enqueue())


async def charge(job: Job) -> None:
    """One call to the provider, in a thread as pgqueuer asks for, so that the heartbeat goes on."""
    wish = json.loads(job.payload or b"")
    await asyncio.to_thread(provider.charge, wish["order"], wish["amount"], wish["order"])


def work() -> None:
    """A worker."""

    async def run() -> None:
        queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(DATABASE)))
        queue.entrypoint("charge")(charge)
        await queue.run(
            dequeue_timeout=timedelta(seconds=1),
            heartbeat_timeout=timedelta(seconds=int(os.environ["PEERS_LEASE_SECONDS"])),
        )

    asyncio.run(run())


def recover() -> None:
    """Nothing: a running worker picks the stalled job again."""


def state(key: str) -> str:
    """The status of the newest job; the log table has those that left the queue."""
    del key  # one charge a database
    with psycopg.connect(DATABASE) as db:
        queued = db.execute("select status::text from pgqueuer order by id desc limit 1").fetchone()
        logged = db.execute("select status::text from pgqueuer_log order by id desc limit 1").fetchone()
    row = queued or logged
    return row[0] if row else "none"
