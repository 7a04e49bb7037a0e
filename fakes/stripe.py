"""A Stripe that stripe-python talks to unchanged: PaymentIntents, charges, events, and idempotency as documented.

One account, test mode only. `fakes.pipeline` fixes the order of checks; this page says how Stripe speaks in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes import clock, idempotency, ledger, payment_intents, request_log, stripe_errors, stripe_lists, stripe_objects
from fakes.form import BadParameter, Form, Kind
from fakes.idempotency import Answer, KeyRules
from fakes.pipeline import Arrival, Call, Refusal, Refused, Route
from service.core.money import currencies

SCHEMA = clock.SCHEMA + idempotency.SCHEMA + request_log.SCHEMA + ledger.SCHEMA

_SHARED: dict[str, Kind] = {
    "allowed_payment_method_types": "list",
    "capture_method": "text",
    "confirmation_token": "text",
    "error_on_requires_action": "boolean",
    "expand": "list",
    "mandate": "text",
    "mandate_data": "any",
    "off_session": "text",  # true, one_off, recurring
    "payment_method": "text",
    "payment_method_options": "hash",
    "radar_options": "hash",
    "receipt_email": "text",
    "return_url": "text",
    "setup_future_usage": "text",
    "shipping": "any",
    "use_stripe_sdk": "boolean",
}
_CREATE = Form(
    {
        **_SHARED,
        "amount": "integer",
        "automatic_payment_methods": "hash",
        "confirm": "boolean",
        "confirmation_method": "text",
        "currency": "text",
        "customer": "text",
        "description": "text",
        "metadata": "metadata",
        "payment_method_types": "list",
        "statement_descriptor": "text",
        "statement_descriptor_suffix": "text",
        "transfer_group": "text",
    },
    required=("amount", "currency"),
)
_CONFIRM = Form(_SHARED)
_CAPTURE = Form({"amount_to_capture": "integer", "expand": "list", "metadata": "metadata"})
_CANCEL = Form({"cancellation_reason": "text", "expand": "list"})
_RETRIEVE = Form({"client_secret": "text", "expand": "list"})
_PAGED: dict[str, Kind] = {
    "created": "any",
    "ending_before": "text",
    "expand": "list",
    "limit": "integer",
    "starting_after": "text",
}
# stripe-python says of each: "This parameter can only be used with confirm=true".
_WITH_CONFIRM_ONLY = ("off_session", "error_on_requires_action", "return_url")


def _route(name: str, method: str, path: str, form: Form, run: Callable[[Call], Answer]) -> Route:
    """An endpoint whose parameters are in the body of a POST and in the query of a GET."""

    def parse(arrival: Arrival) -> Mapping[str, Any]:
        try:
            params = form.read(arrival.query if method == "GET" else arrival.body.decode("utf-8", "replace"))
            if form is _CREATE:
                _check_create(params)
        except BadParameter as bad:
            raise Refused(stripe_errors.error(400, bad.message, code=bad.code, param=bad.param)) from bad
        return params

    return Route(name, method, re.compile(path), parse, run)


def _check_create(params: Mapping[str, Any]) -> None:
    """Parameters that are wrong in themselves, whatever the account or the card."""
    if params["amount"] < 1:
        message = "This value must be greater than or equal to 1."
        raise BadParameter("amount", message, "parameter_invalid_integer")
    if params["currency"].lower() not in currencies():
        raise BadParameter("currency", f"Invalid currency: {params['currency']}.")
    if params.get("customer") is not None and not re.fullmatch(r"cus_\w+", params["customer"]):
        raise BadParameter("customer", f"No such customer: '{params['customer']}'", "resource_missing")
    for name in _WITH_CONFIRM_ONLY:
        if name in params and params[name] not in ("false", False) and not params.get("confirm"):
            raise BadParameter(name, f"The parameter `{name}` can only be used with `confirm=true`.")
    if "statement_descriptor" in params:
        message = "The `statement_descriptor` parameter is not supported for card charges; use the suffix."
        raise BadParameter("statement_descriptor", message)


_INTENTS = "/v1/payment_intents"
_INTENT = rf"{_INTENTS}/(?P<id>\w+)"
ROUTES = (
    _route("create", "POST", _INTENTS, _CREATE, payment_intents.create),
    _route("confirm", "POST", f"{_INTENT}/confirm", _CONFIRM, payment_intents.confirm),
    _route("retrieve", "GET", _INTENT, _RETRIEVE, payment_intents.retrieve),
    _route("capture", "POST", f"{_INTENT}/capture", _CAPTURE, payment_intents.capture),
    _route("cancel", "POST", f"{_INTENT}/cancel", _CANCEL, payment_intents.cancel),
    _route(
        "list",
        "GET",
        _INTENTS,
        Form({**_PAGED, "customer": "text"}),
        stripe_lists.listed("payment_intent", "customer"),
    ),
    _route("retrieve_charge", "GET", r"/v1/charges/(?P<id>\w+)", _RETRIEVE, stripe_lists.retrieve("charge")),
    _route(
        "list_charges",
        "GET",
        "/v1/charges",
        Form({**_PAGED, "customer": "text", "payment_intent": "text"}),
        stripe_lists.listed("charge", "customer", "payment_intent"),
    ),
    _route("retrieve_event", "GET", r"/v1/events/(?P<id>\w+)", _RETRIEVE, stripe_lists.retrieve("event")),
    _route(
        "list_events",
        "GET",
        "/v1/events",
        Form({**_PAGED, "type": "text", "types": "list"}),
        stripe_lists.listed("event", "type"),
    ),
)


class StripeDialect:
    """Stripe's words for what `fakes.pipeline` decides."""

    rules = KeyRules()
    routes = ROUTES

    def account(self, arrival: Arrival) -> str | None:
        """All test keys belong to one account; a connected account has keys of its own."""
        scheme, _, token = arrival.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(("sk_test_", "rk_test_")):
            return None
        return arrival.headers.get("stripe-account", "own")

    def refusal(self, why: Refusal, arrival: Arrival, code: str | None = None) -> Answer:
        """The refusals in front of the endpoint, and its 500."""
        match why:
            case "unauthorized":
                return stripe_errors.unauthorized(arrival.headers.get("authorization"))
            case "rate_limited":
                return stripe_errors.rate_limited(code)
            case "unknown_route":
                return stripe_errors.error(404, f"Unrecognized request URL ({arrival.method}: {arrival.path}).")
            case "key_too_long":
                return stripe_errors.error(400, f"Idempotency keys are at most {self.rules.length_max} characters.")
            case "key_in_use":
                return stripe_errors.key_in_use(arrival.key or "")
            case "server_error":
                return stripe_errors.server_error()

    def mismatch(self, arrival: Arrival, first_path: str) -> Answer:
        """400 `idempotency_error`."""
        return stripe_errors.key_mismatch(arrival.key or "", arrival.path, first_path)

    def headers(self, arrival: Arrival, answer: Answer, original: str | None) -> dict[str, str]:
        """Stripe docs, "Idempotent requests" and "Advanced error handling"; a replay has a request id of its own."""
        headers = {
            "Request-Id": arrival.request_id,
            "Stripe-Version": arrival.headers.get("stripe-version", stripe_objects.API_VERSION),
        }
        if arrival.key:
            headers |= {"Idempotency-Key": arrival.key, "Original-Request": original or arrival.request_id}
        if original:
            headers["Idempotent-Replayed"] = "true"
        if (decided := _should_retry(answer)) is not None:
            headers["Stripe-Should-Retry"] = decided
        return headers


def _should_retry(answer: Answer) -> str | None:
    """Stripe's own advice: a conflict or a lock passes by itself; a stored answer stays what it is."""
    body = answer.body if isinstance(answer.body, Mapping) else {}
    if answer.status == 409 or body.get("error", {}).get("code") == "lock_timeout":
        return "true"
    return "false" if answer.status in (200, 402, 500) else None
