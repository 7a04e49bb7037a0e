"""What each endpoint of Stripe takes, checked before it begins: nothing of such a refusal is kept under a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from fakes.stripe.form import BadParameter, Form, Kind
from fakes.stripe.objects import PAGE_MAX
from service.core.money import currencies

_EVENT_TYPES_MAX = 20
_REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
_CANCEL_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
_CAPTURE_METHODS = ("automatic", "automatic_async", "manual")
# stripe-python says of each: "This parameter can only be used with confirm=true".
_WITH_CONFIRM_ONLY = ("off_session", "error_on_requires_action", "return_url")
_BOUNDS = frozenset(("gt", "gte", "lt", "lte"))


def _payment_intent(params: Mapping[str, Any]) -> None:
    """Parameters that are wrong in themselves, whatever the account or the card."""
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


def _events(params: Mapping[str, Any]) -> None:
    if "type" in params and "types" in params:
        raise BadParameter("types", "You may only specify one of these parameters: type, types.")
    if len(params.get("types", ())) > _EVENT_TYPES_MAX:
        raise BadParameter("types", f"You may only specify up to {_EVENT_TYPES_MAX} types.")


def _one_of(name: str, known: tuple[str, ...]) -> Callable[[Mapping[str, Any]], None]:
    def check(params: Mapping[str, Any]) -> None:
        if params.get(name) not in (None, "", *known):
            raise BadParameter(name, f"Invalid {name}: must be one of {', '.join(known)}")

    return check


def _positive(name: str) -> Callable[[Mapping[str, Any]], None]:
    def check(params: Mapping[str, Any]) -> None:
        if name in params and params[name] < 1:
            raise BadParameter(name, "This value must be greater than or equal to 1.", "parameter_invalid_integer")

    return check


def _page(params: Mapping[str, Any]) -> None:
    limit = params.get("limit", 1)
    if not 1 <= limit <= PAGE_MAX:
        bound = f"less than or equal to {PAGE_MAX}" if limit > PAGE_MAX else "greater than or equal to 1"
        raise BadParameter(
            "limit", f"This value must be {bound} (it currently is '{limit}').", "parameter_invalid_integer"
        )
    if "starting_after" in params and "ending_before" in params:
        message = "You may only specify one of these parameters: starting_after, ending_before."
        raise BadParameter("ending_before", message)


def _created(params: Mapping[str, Any]) -> None:
    wish = params.get("created")
    bounds = wish if isinstance(wish, Mapping) else {} if wish is None else {"gte": wish}
    for name, at in bounds.items():
        if name not in _BOUNDS:
            raise BadParameter(f"created[{name}]", f"Received unknown parameter: created[{name}]", "parameter_unknown")
        if not re.fullmatch(r"\d{1,12}", str(at)):
            raise BadParameter(f"created[{name}]", f"Invalid integer: {at}", "parameter_invalid_integer")


_ATTEMPT: dict[str, Kind] = {
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
_PAGED: dict[str, Kind] = {"ending_before": "text", "expand": "list", "limit": "integer", "starting_after": "text"}
_DATED: dict[str, Kind] = {**_PAGED, "created": "any"}

CREATE = Form(
    {
        **_ATTEMPT,
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
    checks=(_positive("amount"), _payment_intent, _one_of("capture_method", _CAPTURE_METHODS)),
)
CONFIRM = Form(_ATTEMPT, checks=(_one_of("capture_method", _CAPTURE_METHODS),))
CAPTURE = Form(
    {"amount_to_capture": "integer", "expand": "list", "metadata": "metadata"},
    checks=(_positive("amount_to_capture"),),
)
CANCEL = Form(
    {"cancellation_reason": "text", "expand": "list"}, checks=(_one_of("cancellation_reason", _CANCEL_REASONS),)
)
RETRIEVE = Form({"expand": "list"})
RETRIEVE_INTENT = Form({"client_secret": "text", "expand": "list"})
LIST_INTENTS = Form({**_DATED, "customer": "text"}, checks=(_page, _created))
SEARCH = Form(
    {"expand": "list", "limit": "integer", "page": "text", "query": "text"}, required=("query",), checks=(_page,)
)
LIST_CHARGES = Form({**_DATED, "customer": "text", "payment_intent": "text"}, checks=(_page, _created))
LIST_EVENTS = Form({**_DATED, "type": "text", "types": "list"}, checks=(_page, _created, _events))
LIST_BALANCE = Form({**_DATED, "currency": "text", "source": "text", "type": "text"}, checks=(_page, _created))
REFUND = Form(
    {
        "amount": "integer",
        "charge": "text",
        "expand": "list",
        "instructions_email": "text",
        "metadata": "metadata",
        "payment_intent": "text",
        "reason": "text",
    },
    checks=(_positive("amount"), _one_of("reason", _REFUND_REASONS)),
)
UPDATE_REFUND = Form({"expand": "list", "metadata": "metadata"})
EXPAND_ONLY = Form({"expand": "list"})
LIST_REFUNDS = Form({**_DATED, "charge": "text", "payment_intent": "text"}, checks=(_page, _created))
CUSTOMER = Form(
    {
        "address": "any",
        "description": "text",
        "email": "text",
        "expand": "list",
        "metadata": "metadata",
        "name": "text",
        "payment_method": "text",
        "phone": "text",
        "preferred_locales": "list",
        "shipping": "any",
    }
)
LIST_CUSTOMERS = Form({**_DATED, "email": "text"}, checks=(_page, _created))
ATTACH = Form({"customer": "text", "expand": "list"}, required=("customer",))
LIST_METHODS = Form({**_PAGED, "customer": "text", "type": "text"}, checks=(_page,))
