"""Before: a view of an existing code base, and the Celery task of its own that it calls."""

from __future__ import annotations

from sqlalchemy.orm import Session

from own_tasks import charge


def checkout(session: Session, order_id: int, amount: int) -> None:
    """If the process dies between the commit and `delay`, nobody pays; if the worker does, somebody pays twice."""
    session.commit()
    charge.delay(
        amount=amount,
        currency="eur",
        payment_method="pm_card_visa",
    )
