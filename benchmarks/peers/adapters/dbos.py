"""DBOS Transact: a durable workflow with the charge in a step, from a queue, recovered when the process starts again.

DBOS docs, "Workflows", "Steps", "Queues" and "Idempotency": the workflow id is the idempotency key, and `DBOS.launch`
recovers the pending workflows of the same executor and application version. PEERS_VARIANT `two_steps` creates and
confirms the PaymentIntent in two checkpointed steps.
"""

from __future__ import annotations

import os
import threading

from dbos import DBOS, DBOSClient, DBOSConfig

from benchmarks.peers import provider

ENDS = {"SUCCESS": "finished", "ERROR": "failed", "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed"}
CONFIG: DBOSConfig = {
    "name": "peers",
    "system_database_url": os.environ["PEERS_DATABASE"],
    "run_admin_server": False,  # type: ignore[typeddict-unknown-key]
}


@DBOS.step()
def charge(order: str, amount: int, key: str) -> str:
    """One call to the provider."""
    return provider.charge(order, amount, key)


@DBOS.step()
def create(order: str, amount: int, key: str) -> str:
    """The first of two: no money moves."""
    return provider.create(order, amount, key)


@DBOS.step()
def confirm(intent: str, key: str) -> None:
    """The second of two: it does."""
    provider.confirm(intent, key)


@DBOS.workflow()
def pay(order: str, amount: int) -> None:
    """The workflow; its id is the key."""
    key = str(DBOS.workflow_id)
    if os.environ.get("PEERS_VARIANT") == "two_steps":
        confirm(create(order, amount, key), key)
    else:
        charge(order, amount, key)


def launched() -> None:
    """This process takes part: it runs the queue, and recovers what its predecessor left."""
    DBOS(config=CONFIG)
    DBOS.launch()
    DBOS.register_queue("charges")


def client() -> DBOSClient:
    """The caller's side ("DBOS Client")."""
    return DBOSClient(system_database_url=os.environ["PEERS_DATABASE"], application_name="peers")


def prepare() -> None:
    """The system tables are created by the first launch."""
    launched()
    DBOS.destroy()


def submit(key: str, amount: int) -> str:
    """Enqueue under the workflow id."""
    handle = client().enqueue({"queue_name": "charges", "workflow_name": "pay", "workflow_id": key}, key, amount)
    return f"accepted as workflow {handle.get_workflow_id()}"


def work() -> None:
    """An application process."""
    launched()
    threading.Event().wait()


def recover() -> None:
    """Nothing: starting the process again is the documented recovery without DBOS Conductor."""


def state(key: str) -> str:
    """The status of the workflow."""
    return str(client().retrieve_workflow(key).get_status().status)
