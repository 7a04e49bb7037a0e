"""Customers: somebody to attach payment methods to, and to list PaymentIntents by."""

from __future__ import annotations

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Call, Refused
from fakes.stripe import errors as stripe_errors
from fakes.stripe import payment_methods
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.change import Change


def create(call: Call) -> Answer:
    """POST /v1/customers; a `payment_method` named here is attached."""
    change = Change.asked_by(call)
    customer = stripe_objects.customer(call.params, change.now)
    change.save(customer)
    change.emit("customer.created", customer)
    if name := call.params.get("payment_method"):
        found = payment_methods.find(change, name, None)
        payment_methods.give_to(change, found, customer["id"])
    return Answer(200, customer)


def attach(call: Call) -> Answer:
    """POST /v1/payment_methods/{id}/attach."""
    change, customer = Change.asked_by(call), call.params["customer"]
    check(change, customer, param="customer")
    return Answer(200, payment_methods.attach(change, call.path_id or "", customer))


def check(change: Change, customer: str | None, param: str) -> None:
    """Refuse a customer that does not exist, where the account is strict. Raises Refused."""
    if customer is None or not change.settings.strict_accounts:
        return
    if change.load("customer", customer) is None:
        raise Refused(stripe_errors.no_such("customer", customer, param, 400))
