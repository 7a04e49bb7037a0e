"""Before: the task. It goes away with the upgrade; other tasks of this app stay as they are."""

from __future__ import annotations

import os

import stripe
from celery import Celery

app = Celery("shop", broker=os.environ.get("SHOP_BROKER_URL", "redis://127.0.0.1:6379/0"))


@app.task(acks_late=True)
def charge(amount: int, currency: str, payment_method: str) -> str:
    """A redelivery runs all of it again."""
    paid = stripe.PaymentIntent.create(
        amount=amount, currency=currency, payment_method=payment_method, confirm=True, off_session=True
    )
    return paid.id
