"""Stripe's endpoints: where they are, what they take, and what they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Arrival, Call, Refused, Route
from fakes.stripe import customers, expansion, holds, payment_intents, payment_methods, refunds
from fakes.stripe import errors as stripe_errors
from fakes.stripe import lists as stripe_lists
from fakes.stripe import params as stripe_params
from fakes.stripe.form import BadParameter, Form

Endpoint = Callable[[Call], Answer]


def _route(name: str, method: str, path: str, form: Form, run: Endpoint) -> Route:
    """An endpoint whose parameters are in the body of a POST and in the query of a GET."""

    def parse(arrival: Arrival) -> Mapping[str, Any]:
        try:
            params = form.read(arrival.query if method == "GET" else arrival.body.decode("utf-8", "replace"))
        except BadParameter as bad:
            raise Refused(stripe_errors.error(400, bad.message, code=bad.code, param=bad.param)) from bad
        return params

    return Route(name, method, re.compile(path), parse, _whole(run))


def _whole(run: Endpoint) -> Endpoint:
    """An endpoint that changes everything it is about to change, or nothing when it refuses."""

    def endpoint(call: Call) -> Answer:
        holds.expire(call.connection, call.arrival.at)
        call.connection.execute("SAVEPOINT endpoint")
        try:
            return _expanded(call, run(call))
        except Refused:
            call.connection.execute("ROLLBACK TO endpoint")
            raise
        finally:
            call.connection.execute("RELEASE endpoint")

    return endpoint


def _expanded(call: Call, answer: Answer) -> Answer:
    paths = call.params.get("expand")
    if not paths or answer.status != 200 or not isinstance(answer.body, dict):
        return answer
    try:
        return Answer(200, expansion.expanded(call.connection, answer.body, paths, call.now))
    except expansion.BadExpansion as bad:
        message = f"This property cannot be expanded ({bad})."
        raise Refused(stripe_errors.error(400, message, param="expand")) from bad


def _read(noun: str, kind: str, form: Form, *filters: str) -> tuple[Route, Route]:
    """The two endpoints that every kind has: one object, and the list."""
    address = f"/v1/{kind}s"
    return (
        _route(
            f"retrieve_{noun}", "GET", rf"{address}/(?P<id>\w+)", stripe_params.RETRIEVE, stripe_lists.retrieve(kind)
        ),
        _route(f"list_{noun}s", "GET", address, form, stripe_lists.listed(kind, *filters)),
    )


_INTENTS, _REFUNDS, _METHODS = "/v1/payment_intents", "/v1/refunds", "/v1/payment_methods"
_INTENT, _REFUND, _METHOD = (rf"{address}/(?P<id>\w+)" for address in (_INTENTS, _REFUNDS, _METHODS))

ROUTES = (
    _route("create", "POST", _INTENTS, stripe_params.CREATE, payment_intents.create),
    _route("confirm", "POST", f"{_INTENT}/confirm", stripe_params.CONFIRM, payment_intents.confirm),
    _route("capture", "POST", f"{_INTENT}/capture", stripe_params.CAPTURE, payment_intents.capture),
    _route("cancel", "POST", f"{_INTENT}/cancel", stripe_params.CANCEL, payment_intents.cancel),
    # In front of `retrieve`, whose pattern would take the word for an id.
    _route("search", "GET", f"{_INTENTS}/search", stripe_params.SEARCH, stripe_lists.searched),
    _route("retrieve", "GET", _INTENT, stripe_params.RETRIEVE_INTENT, stripe_lists.retrieve("payment_intent")),
    _route("list", "GET", _INTENTS, stripe_params.LIST_INTENTS, stripe_lists.listed("payment_intent", "customer")),
    _route("refund", "POST", _REFUNDS, stripe_params.REFUND, refunds.create),
    _route("cancel_refund", "POST", f"{_REFUND}/cancel", stripe_params.EXPAND_ONLY, refunds.cancel),
    _route("update_refund", "POST", _REFUND, stripe_params.UPDATE_REFUND, refunds.update),
    *_read("refund", "refund", stripe_params.LIST_REFUNDS, "charge", "payment_intent"),
    *_read("charge", "charge", stripe_params.LIST_CHARGES, "customer", "payment_intent"),
    *_read("balance_transaction", "balance_transaction", stripe_params.LIST_BALANCE, "type", "source", "currency"),
    _route("retrieve_event", "GET", r"/v1/events/(?P<id>\w+)", stripe_params.RETRIEVE, stripe_lists.retrieve("event")),
    _route("list_events", "GET", "/v1/events", stripe_params.LIST_EVENTS, stripe_lists.events),
    _route("create_customer", "POST", "/v1/customers", stripe_params.CUSTOMER, customers.create),
    *_read("customer", "customer", stripe_params.LIST_CUSTOMERS, "email"),
    _route(
        "list_payment_methods_of_customer",
        "GET",
        r"/v1/customers/(?P<id>\w+)/payment_methods",
        stripe_params.LIST_METHODS,
        stripe_lists.payment_methods_of_customer,
    ),
    _route("attach", "POST", f"{_METHOD}/attach", stripe_params.ATTACH, customers.attach),
    _route("detach", "POST", f"{_METHOD}/detach", stripe_params.EXPAND_ONLY, payment_methods.detach),
    _route("retrieve_payment_method", "GET", _METHOD, stripe_params.RETRIEVE, stripe_lists.retrieve("payment_method")),
    _route("list_payment_methods", "GET", _METHODS, stripe_params.LIST_METHODS, stripe_lists.payment_methods),
)
