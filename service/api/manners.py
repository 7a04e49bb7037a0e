"""What every request must keep to, whatever it asks for: known parameters once each, and an answer it can read."""

from __future__ import annotations

from collections import Counter

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query

from service.api.problems import Problem

_JSON = frozenset({"application/json", "application/problem+json", "application/*", "*/*"})
_NAME_LENGTH_MAX = 60


async def well_mannered(request: Request) -> None:
    """A dependency of every route. Raises Problem.

    A parameter that we do not know is a filter that would silently not apply: the list of what is stuck would be the
    list of everything.
    """
    _check_parameters(request)
    _check_accept(request)


def _check_parameters(request: Request) -> None:
    if not request.query_params:
        return
    known = _known(request)
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            offered = f"there are {', '.join(sorted(known))}" if known else "there are none"
            # Not repeated: a card number may stand there.
            raise Problem("invalid_request", f"a query parameter is not known here; {offered}", field="query")
        if times > 1:
            raise Problem("invalid_request", f"{name} stands twice in the query", field=name[:_NAME_LENGTH_MAX])


def _known(request: Request) -> set[str]:
    parameters = get_flat_params(request.scope["route"].dependant)
    return {parameter.alias for parameter in parameters if isinstance(parameter.field_info, Query)}


def _check_accept(request: Request) -> None:
    """RFC 9110 §12.5.1; weights are read as far as they say "not this" (q=0)."""
    wanted = ",".join(request.headers.getlist("accept"))
    if not wanted.strip():
        return
    for item in wanted.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        if kind in _JSON and not any(_forbids(parameter) for parameter in parameters):
            return
    raise Problem("not_acceptable", "the answer is application/json, which Accept does not name", field="Accept")


def _forbids(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0").rstrip(".") in ("", "0")
