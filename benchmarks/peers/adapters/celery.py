"""Celery on Redis: a task that charges, in a prefork worker, with each of the three ways to acknowledge.

Celery docs, "Tasks" and "Configuration and defaults" (task_acks_late, task_reject_on_worker_lost, visibility_timeout).
The task id is Celery's stable name of a task: it survives redelivery, and the caller may choose it (`task_id`).
"""

from __future__ import annotations

import os
import sys

from celery import Celery
from celery.result import AsyncResult

from benchmarks.peers import provider

# PEERS_VARIANT: early (the default of Celery) · late · late_rejecting
VARIANT = os.environ.get("PEERS_VARIANT", "early")
ENDS = {"SUCCESS": "finished", "FAILURE": "failed"}

app = Celery("peers", broker=os.environ["PEERS_BROKER"], backend=os.environ["PEERS_BROKER"])
app.conf.update(
    task_acks_late=VARIANT != "early",
    task_reject_on_worker_lost=VARIANT == "late_rejecting",
    broker_connection_retry_on_startup=True,
    # Celery docs, "Using Redis": an hour by default. As short as everybody's lease here, and looked at every second
    # instead of every ten polls, which only shortens the wait.
    broker_transport_options={
        "visibility_timeout": int(os.environ["PEERS_LEASE_SECONDS"]),
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task(bind=True, name="charge")
def charge(self, order: str, amount: int) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001 - Celery's own way
    """The task of most examples: one call to the provider."""
    return provider.charge(order, amount, self.request.id)


def prepare() -> None:
    """Redis needs nothing."""


def submit(key: str, amount: int) -> str:
    """Publish under the caller's own task id."""
    charge.apply_async((key, amount), task_id=key)
    return "accepted"


def work() -> None:
    """The worker as `celery worker` starts it, with one child."""
    flags = ["--concurrency", "1", "--loglevel", "INFO"]
    os.execv(  # noqa: S606 - becomes the worker itself, so that its process id is known
        sys.executable, [sys.executable, "-m", "celery", "-A", __name__, "worker", *flags]
    )


def recover() -> None:
    """Nothing: the worker replaces its child by itself."""


def state(key: str) -> str:
    """Celery's result state."""
    return AsyncResult(key, app=app).state
