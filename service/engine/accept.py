"""Accept: put effects on the books inside the caller's transaction; the same key gives the same effect, for ever.

W1: nothing is promised before the caller commits, and nothing exists if it never does. Accept never commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.core.effect import Accepted, Order
from service.core.errors import DedupeConflict, ValidationError
from service.core.state import State
from service.store import bell, effects
from service.store.database import Caller, connection_of, statement, transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection

ORDERS_AT_ONCE = 2_000  # one statement's share of a bulk: a few megabytes of parameters, tens of milliseconds
"""Larger calls are cut into statements of this size, inside the same transaction."""


def accept(caller: Caller, orders: Sequence[Order], *, actor: str) -> list[Accepted]:
    """Accept each order in the caller's transaction; the answers come in the order of `orders`.

    Raises ValidationError when an order concerns an effect that is not there or does not fit, DedupeConflict when a
    key was used before with another request (I4): then none of the call is written, even if the caller catches it
    and commits.
    """
    connection = connection_of(caller)
    if len(orders) == 1:
        answers = _accept_some(connection, orders, actor)
    else:
        with connection.begin_nested():
            answers = [a for part in _parts(orders) for a in _accept_some(connection, part, actor)]
    bell.ring_after_commit(caller)
    return answers


def accept_alone(orders: Sequence[Order], *, actor: str) -> list[Accepted]:
    """Accept in a transaction of our own, committed on return. Raises DedupeConflict or DependencyUnavailable."""
    # One order is one statement, which is a transaction by itself: two round trips less.
    with statement() if len(orders) == 1 else transaction() as connection:
        answers = [a for part in _parts(orders) for a in _accept_some(connection, part, actor)]
    bell.ring()
    return answers


def accept_each(orders: Sequence[Order], *, actor: str) -> list[Accepted | ValidationError | DedupeConflict]:
    """Accept those orders that can be, in a transaction of our own; in the place of each other one stands its error.

    Committed on return, so that a caller who lost the answer repeats the whole call and finds the same effects.
    Raises DependencyUnavailable.
    """
    with transaction() as connection:
        answers = [a for part in _parts(orders) for a in _accept_fitting(connection, part, actor)]
    bell.ring()
    return answers


def misfits(orders: Sequence[Order]) -> list[ValidationError | DedupeConflict | None]:
    """What stands on the books against each order, None where nothing does; writes nothing."""
    with statement() as connection:
        unfit = _unfit(connection, orders)
        known = effects.find(connection, orders)
    answers = ((order, _repeat(order, known[order.id]) if order.id in known else None) for order in orders)
    return [unfit.get(order.id) or (a if isinstance(a, DedupeConflict) else None) for order, a in answers]


def _parts(orders: Sequence[Order]) -> list[Sequence[Order]]:
    return [orders[i : i + ORDERS_AT_ONCE] for i in range(0, len(orders), ORDERS_AT_ONCE)]


def _accept_some(caller: Caller, orders: Sequence[Order], actor: str) -> list[Accepted]:
    connection = connection_of(caller)
    for error in _unfit(connection, orders).values():
        raise error
    answers = []
    for answer in _write(connection, orders, actor):
        if isinstance(answer, DedupeConflict):
            raise answer
        answers.append(answer)
    return answers


def _accept_fitting(
    connection: Connection, orders: Sequence[Order], actor: str
) -> Iterator[Accepted | ValidationError | DedupeConflict]:
    unfit = _unfit(connection, orders)
    fitting = [order for order in orders if order.id not in unfit]
    written = iter(_write(connection, fitting, actor))
    for order in orders:
        yield unfit[order.id] if order.id in unfit else next(written)


def _write(connection: Connection, orders: Sequence[Order], actor: str) -> list[Accepted | DedupeConflict]:
    created = effects.accept(connection, orders, actor=actor)
    repeated = [order for order in orders if order.id not in created]
    known = effects.find(connection, repeated) if repeated else {}
    return [
        Accepted(order.id, State.PENDING, created=True) if order.id in created else _repeat(order, known[order.id])
        for order in orders
    ]


def _unfit(connection: Connection, orders: Sequence[Order]) -> dict[str, ValidationError]:
    """The orders that name a charge which is not there or does not fit, by id: a refund, capture or cancel."""
    concerning = [order for order in orders if order.concerns]
    known = effects.kinds_of(connection, [str(order.concerns) for order in concerning]) if concerning else {}
    found = ((order.id, _mismatch(order, known.get(str(order.concerns)))) for order in concerning)
    return {order_id: error for order_id, error in found if error}


def _mismatch(order: Order, charge: Mapping[str, Any] | None) -> ValidationError | None:
    """A refund, capture or cancel names a charge of the same tenant and currency, and no more than its amount."""
    if charge is None or charge["tenant"] != order.tenant or charge["kind"] != "charge":
        return ValidationError(
            f"charge: there is no charge {order.concerns}; pass the id that charge.apply_async returned",
            field="charge",
        )
    if order.amount is None:
        return None
    if order.currency != charge["currency"]:
        return ValidationError(f"currency: the charge is in {charge['currency']}", field="currency")
    if order.amount > charge["amount"]:
        return ValidationError(
            f"amount: {order.amount} is more than the charge's {charge['amount']} (minor units)", field="amount"
        )
    return None


def _repeat(order: Order, known: tuple[str, State, str]) -> Accepted | DedupeConflict:
    effect_id, state, fingerprint = known
    if fingerprint != order.fingerprint:
        return DedupeConflict(
            f"dedupe_key {order.dedupe_key!r} was used before for another {order.kind} ({effect_id}); "
            "send the same request again, or give the new one a key of its own",
            effect_id=effect_id,
        )
    return Accepted(effect_id, state, created=False)
