"""Reading what is there: objects by id, and lists as Stripe pages them, newest first and read-after-write."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fakes import ledger, stripe_errors
from fakes.idempotency import Answer
from fakes.ledger import Page
from fakes.pipeline import Call, Refused

_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def retrieve(kind: str) -> Callable[[Call], Answer]:
    """The endpoint that shows one object of a kind."""

    def run(call: Call) -> Answer:
        found = ledger.load(call.connection, kind, call.path_id or "")
        if found is None:
            raise Refused(stripe_errors.no_such(kind, call.path_id or "", "id"))
        return Answer(200, found)

    return run


def listed(kind: str, *filters: str) -> Callable[[Call], Answer]:
    """The endpoint that lists a kind, filtered by equality on `filters` and by `created`."""

    def run(call: Call) -> Answer:
        params = call.params
        page = Page(
            int(params.get("limit", ledger.PAGE_DEFAULT)), params.get("starting_after"), params.get("ending_before")
        )
        conditions: dict[str, object] = {f"{name} = ?": params[name] for name in filters if name in params}
        conditions |= _created(params.get("created"))
        if types := params.get("types"):
            # One placeholder bound to a JSON array keeps the statement constant.
            conditions["type IN (SELECT value FROM json_each(?))"] = _json_array(types)
        data, more = ledger.listed(call.connection, kind, page, conditions)
        return Answer(200, {"object": "list", "data": data, "has_more": more, "url": call.arrival.path})

    return run


def _json_array(values: list[str]) -> str:
    import json

    return json.dumps(values)


def _created(wish: object) -> dict[str, object]:
    if isinstance(wish, str):
        return {"created = ?": int(wish)}
    if isinstance(wish, Mapping):
        return {f"created {_COMPARISONS[name]} ?": int(at) for name, at in wish.items() if name in _COMPARISONS}
    return {}
