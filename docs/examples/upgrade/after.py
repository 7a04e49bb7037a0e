"""After: one import changed, a dedupe key and the session added. The task is Counterfoil's."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tasks import charge


def checkout(session: Session, order_id: int, amount: int) -> None:
    """The order and its charge are one commit."""
    charge.delay(
        amount=amount,
        currency="eur",
        payment_method="pm_card_visa",
        dedupe_key=f"order:{order_id}:charge",
        session=session,
    )
    session.commit()
