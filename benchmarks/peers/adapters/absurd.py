"""Absurd: a durable task with the charge in a step, spawned under an idempotency key.

Absurd docs, "Concepts": the step, the claim timeout, spawn-time deduplication, and the key for payment APIs inside a
step, `f"{ctx.task_id}:payment"`, which is the one passed on here. The schema is the one `absurdctl init` applies.
"""

from __future__ import annotations

import os
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd

from benchmarks.peers import provider

DATABASE = os.environ["PEERS_DATABASE"]
ENDS = {"completed": "finished", "failed": "failed", "cancelled": "failed"}


def application() -> Absurd:
    """The client with its one task."""
    app = Absurd(DATABASE, queue_name="charges")

    @app.register_task("pay")
    def pay(params: dict[str, Any], ctx: Any) -> str:
        def process_payment() -> str:
            return provider.charge(params["order"], params["amount"], f"{ctx.task_id}:payment")

        return str(ctx.step("process-payment", process_payment))

    return app


def prepare() -> None:
    """`absurdctl init` (without its psql) and `absurdctl create-queue`."""
    with psycopg.connect(DATABASE, autocommit=True) as db:
        db.execute(absurdctl.BUNDLED_SCHEMA_SQL)
    application().create_queue("charges")


def submit(key: str, amount: int) -> str:
    """Spawn under the idempotency key."""
    spawned = application().spawn("pay", {"order": key, "amount": amount}, idempotency_key=key)
    return f"accepted as task {spawned['task_id']}"


def work() -> None:
    """A worker."""
    application().start_worker(claim_timeout=int(os.environ["PEERS_LEASE_SECONDS"]))


def recover() -> None:
    """Nothing: the claim runs out, and another worker takes the task."""


def state(key: str) -> str:
    """The state of the newest task with this key."""
    with psycopg.connect(DATABASE) as db:
        query = "select state from absurd.t_charges where idempotency_key = %s order by enqueue_at desc limit 1"
        row = db.execute(query, (key,)).fetchone()
    return row[0] if row else "none"
