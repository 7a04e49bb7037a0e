"""Reading what is there: objects by id, and lists as Stripe pages them, newest first and read-after-write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fakes.house.idempotency import Answer
from fakes.house.pipeline import Call, Refused
from fakes.stripe import balance, customers, objects, search
from fakes.stripe import errors as stripe_errors
from fakes.stripe.change import Change
from fakes.stripe.objects import Json, Page, UnknownCursor, Wish

_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# Stripe docs, "List all events": events go back 30 days.
EVENTS_KEPT_SECONDS = 30 * 24 * 3600
# How Stripe calls an object's id in its 404.
_ID_PARAM = {"payment_intent": "intent", "payment_method": "payment_method", "refund": "refund"}
_NAMES = {"payment_method": "PaymentMethod", "balance_transaction": "balance transaction"}


def retrieve(kind: str) -> Callable[[Call], Answer]:
    """The endpoint that shows one object of a kind."""

    def run(call: Call) -> Answer:
        found = objects.load(call.connection, kind, call.path_id or "")
        if found is None or (kind == "event" and found["created"] < _oldest_event(call)):
            what, param = _NAMES.get(kind, kind), _ID_PARAM.get(kind, "id")
            raise Refused(stripe_errors.no_such(what, call.path_id or "", param))
        return Answer(200, _shown(found, call))

    return run


def listed(kind: str, *filters: str) -> Callable[[Call], Answer]:
    """The endpoint that lists a kind, filtered by equality on `filters` and by `created`."""

    def run(call: Call) -> Answer:
        conditions: dict[str, object] = {_equal(name): call.params[name] for name in filters if name in call.params}
        return _list(call, Wish(kind, conditions | created(call.params.get("created"))))

    return run


def _equal(name: str) -> str:
    """A filter on a column where there is one, on the body where it is rare."""
    return f"{name} = ?" if name in objects.COLUMNS else f"json_extract(body, '$.{name}') = ?"


def events(call: Call) -> Answer:
    """GET /v1/events: of one type (`charge.*` is one too) or any of up to twenty, thirty days back."""
    types = call.params.get("types") or ([call.params["type"]] if "type" in call.params else [])
    conditions = created(call.params.get("created")) | {"? <= created": _oldest_event(call)}
    return _list(call, Wish("event", conditions, tuple(dict.fromkeys(types))))


def payment_methods_of_customer(call: Call) -> Answer:
    """GET /v1/customers/{id}/payment_methods."""
    customers.check(Change.asked_by(call), call.path_id, "customer")
    return _list(call, Wish("payment_method", {"customer = ?": call.path_id} | _of_type(call.params)))


def payment_methods(call: Call) -> Answer:
    """GET /v1/payment_methods: those of one customer."""
    customers.check(Change.asked_by(call), call.params.get("customer"), "customer")
    return _list(call, Wish("payment_method", {"customer = ?": call.params.get("customer")} | _of_type(call.params)))


def searched(call: Call) -> Answer:
    """GET /v1/payment_intents/search, behind the objects by the lag that is set."""
    lag = Change.asked_by(call).settings.search_lag_seconds
    limit = call.params.get("limit", objects.PAGE_DEFAULT)
    try:
        data, more = search.search(
            call.connection, call.params["query"], call.arrival.at - lag, limit, call.params.get("page")
        )
    except search.BadQuery as bad:
        raise Refused(stripe_errors.error(400, str(bad), param="query")) from bad
    answer = {"object": "search_result", "data": data, "has_more": more is not None, "next_page": more}
    return Answer(200, {**answer, "url": call.arrival.path})


def _list(call: Call, wish: Wish) -> Answer:
    params = call.params
    page = Page(params.get("limit", objects.PAGE_DEFAULT), params.get("starting_after"), params.get("ending_before"))
    try:
        data, more = objects.listed(call.connection, wish, page)
    except UnknownCursor as unknown:
        param = "ending_before" if page.ending_before else "starting_after"
        raise Refused(stripe_errors.no_such(wish.kind, str(unknown), param, 400)) from unknown
    shown = [_shown(each, call) for each in data]
    return Answer(200, {"object": "list", "data": shown, "has_more": more, "url": call.arrival.path})


def _shown(thing: Json, call: Call) -> Json:
    return balance.as_of(thing, call.now) if thing["object"] == "balance_transaction" else thing


def _oldest_event(call: Call) -> int:
    return call.now - EVENTS_KEPT_SECONDS


def _of_type(params: Mapping[str, Any]) -> dict[str, object]:
    return {"type = ?": params["type"]} if "type" in params else {}


def created(wish: object) -> dict[str, object]:
    """The conditions of a `created` parameter: one second, or bounds."""
    if isinstance(wish, str):
        return {"created = ?": int(wish)}
    if isinstance(wish, Mapping):
        return {f"created {_COMPARISONS[name]} ?": int(at) for name, at in wish.items()}
    return {}
