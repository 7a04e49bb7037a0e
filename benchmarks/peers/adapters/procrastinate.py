"""procrastinate: a job with a queueing lock, and the periodic task of its guide that retries stalled jobs.

procrastinate docs, "Retry stalled jobs" (the periodic task below is the one printed there, with shorter times) and
"Queueing locks". The queueing lock, which the caller chooses, is the name passed on to the provider.
"""

from __future__ import annotations

import os

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.job_context import JobContext

from benchmarks.peers import provider

LEASE_SECONDS = int(os.environ["PEERS_LEASE_SECONDS"])
DATABASE = os.environ["PEERS_DATABASE"]
ENDS = {"succeeded": "finished", "failed": "failed", "aborted": "failed", "cancelled": "failed"}

app = App(connector=PsycopgConnector(conninfo=DATABASE))


@app.task(name="charge", pass_context=True)
def charge(context: JobContext, order: str, amount: int) -> str:
    """One call to the provider."""
    return provider.charge(order, amount, str(context.job.queueing_lock))


@app.periodic(cron="* * * * * */2")
@app.task(queueing_lock="retry_stalled_jobs", pass_context=True)
async def retry_stalled_jobs(context: JobContext, timestamp: int) -> None:  # noqa: ARG001 - the signature of the guide
    """The guide's own, word for word but for the times."""
    stalled_jobs = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=LEASE_SECONDS)
    for job in stalled_jobs:
        await app.job_manager.retry_job(job)


def prepare() -> None:
    """Apply the schema."""
    with app.open():
        app.schema_manager.apply_schema()


def submit(key: str, amount: int) -> str:
    """Defer under the queueing lock and the lock of the key."""
    with app.open():
        job = charge.configure(queueing_lock=key, lock=key).defer(order=key, amount=amount)
    return f"accepted as job {job}"


def work() -> None:
    """A worker."""
    app.run_worker(
        concurrency=2,
        fetch_job_polling_interval=1,
        update_heartbeat_interval=LEASE_SECONDS / 4,
        stalled_worker_timeout=LEASE_SECONDS,
    )


def recover() -> None:
    """Nothing: the periodic task runs in any worker."""


def state(key: str) -> str:
    """The status of the newest job with this lock."""
    with psycopg.connect(DATABASE) as db:
        query = "select status from procrastinate_jobs where lock = %s order by id desc limit 1"
        row = db.execute(query, (key,)).fetchone()
    return row[0] if row else "none"
