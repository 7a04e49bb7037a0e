"""A shop's own table; an order and its charge are one commit. The web frameworks beside this file only call it.

Works with any SQLAlchemy session on the database where Counterfoil's tables live.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tasks import EffectResult, charge


class Base(DeclarativeBase):
    """The shop's tables."""


class Order(Base):
    """One order; `number` comes from the shop's form, so that pressing the button twice is the same order."""

    __tablename__ = "shop_orders"
    number: Mapped[str] = mapped_column(Text, primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger, comment="minor units")
    charge_id: Mapped[str] = mapped_column(Text)


def place(session: Session, number: str, amount: int) -> EffectResult:
    """Write the order and ask for its charge, in the caller's transaction. Raises DedupeConflict, ValidationError."""
    paid = charge.apply_async(
        kwargs={
            "amount": amount,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "receipt_email": "ada@example.com",
            "description": f"Order {number}",
        },
        dedupe_key=f"order:{number}:charge",
        session=session,
    )
    if paid.created:
        session.add(Order(number=number, amount=amount, charge_id=paid.id))
    return paid
