"""What many teams run today, for `counterfoil demo --naive`: a Celery task with `acks_late` and automatic retries.

It follows the usual advice, late acknowledgement, reject on worker loss, retries with backoff, and keeps no record.
`python -m fakes.naive` publishes one task for each JSON line on standard input.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from functools import cache

import stripe
from celery import Celery

app = Celery("naive", broker=os.environ.get("NAIVE_BROKER_URL", ""))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    # Short, so that redelivery fits into a demo; the default is an hour, which only delays the second charge.
    broker_transport_options={"visibility_timeout": 4, "unacked_restore_interval": 1, "unacked_restore_throttle": 1},
)
stripe.enable_telemetry = False


@cache
def _client() -> stripe.StripeClient:
    return stripe.StripeClient("sk_test_naive", base_addresses={"api": os.environ["NAIVE_STRIPE_API_BASE"]})


@app.task(
    name="naive.charge",
    autoretry_for=(Exception,),
    dont_autoretry_for=(stripe.CardError,),
    retry_backoff=1,
    max_retries=5,
)
def charge(order: str, amount: int, card: str, to: str) -> None:
    """Charge, then mail the receipt. The SDK makes up a new idempotency key for every call."""
    _client().v1.payment_intents.create(
        {
            "amount": amount,
            "currency": "eur",
            "customer": "cus_demo",
            "payment_method": card,
            "confirm": True,
            "off_session": True,
            "metadata": {"order": order},
        }
    )
    letter = {"from": "shop@example.test", "to": [to], "subject": f"Receipt {order}", "text": f"We charged {amount}."}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer naive"}
    call = urllib.request.Request(f"{os.environ['NAIVE_MAIL_URL']}/emails", json.dumps(letter).encode(), headers)  # noqa: S310 - our own loopback server
    urllib.request.urlopen(call, timeout=10).close()  # noqa: S310 - the same


def main() -> None:
    """Publish one task a line."""
    for line in sys.stdin:
        charge.delay(**json.loads(line))


if __name__ == "__main__":
    main()
