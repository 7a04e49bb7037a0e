"""What we are compared with: a Celery task with `acks_late` that makes the same provider call, and nothing else.

No record, no key that outlives the message, no outbox. `mail` calls through the same HTTP client as ours,
`pay` through the real Stripe SDK in one call (create and confirm), as most people write it.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import stripe
from celery import Celery

from service.providers.wire import Wire

app = Celery("bare", broker=os.environ["COUNTERFOIL_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    task_default_queue="bare",
    broker_connection_retry_on_startup=True,
    broker_transport_options={"max_connections": 64},
)
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer bench"}


@cache
def wire() -> Wire:
    """The client, kept alive."""
    return Wire(os.environ["BENCH_PROVIDER"])


@cache
def client() -> stripe.StripeClient:
    """The SDK as it comes: requests underneath."""
    return stripe.StripeClient(
        "sk_test_bench", base_addresses={"api": os.environ["BENCH_PROVIDER"]}, max_network_retries=0
    )


@app.task(name="bare.mail")
def mail(key: str, body: str) -> None:
    """One POST with a key."""
    headers = {**HEADERS, "Idempotency-Key": key}
    wire().request("POST", "/emails", headers, body.encode(), seconds=20.0, before_send=lambda: None)


@app.task(name="bare.pay")
def pay(key: str, params: dict[str, Any]) -> None:
    """One PaymentIntent, created and confirmed in one call."""
    client().v1.payment_intents.create(params, {"idempotency_key": key})  # type: ignore[arg-type]
