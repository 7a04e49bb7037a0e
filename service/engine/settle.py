"""Settle: what attempts learned, with the effects their success causes, in one commit.

W9 lies before it, W10 after it. Each settlement is guarded by its attempt's number; one that no longer owns its effect
leaves a journal fact and causes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.core.effect import Order
from service.store import attempts, bell, effects
from service.store.attempts import Settlement
from service.store.database import statement, transaction


def settle(items: Sequence[tuple[Settlement, list[Order]]], *, actor: str) -> set[tuple[str, int]]:
    """Write the settlements and their follow-ups; return id and number of the attempts that still owned their effects.

    Raises SchemaRefused when one of them contradicts a promise of the schema (then none is written), and
    DependencyUnavailable.
    """
    settlements = [done for done, _ in items]
    if not any(orders for _, orders in items):
        with statement() as connection:
            return attempts.settle(connection, settlements, actor=actor)
    with transaction() as connection:
        owned = attempts.settle(connection, settlements, actor=actor)
        orders = [order for done, asked in items if (done.id, done.attempt) in owned for order in asked]
        if orders:
            effects.accept(connection, orders, actor=actor)
    if orders:
        bell.ring()
    return owned
