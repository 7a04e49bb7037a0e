"""Each request of the client: what is sent, how its answer is read, and whether it may be sent twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar

from service.client.answers import Accepted, Batch, Effect, Event, Group, Item, Operation, Page, Plan

if TYPE_CHECKING:
    from typing import NotRequired

T = TypeVar("T")

WAIT_SECONDS_MAX = 30
"""The longest that the server lets one request wait; for more the client asks again."""

PATHS = {
    "charge": "/v1/charges",
    "email": "/v1/emails",
    "refund": "/v1/refunds",
    "capture": "/v1/captures",
    "cancel": "/v1/cancels",
}


class Options(TypedDict, total=False):
    """When and where: `eta` (RFC 3339) or `countdown` (seconds), `priority` 0 to 9, `queue` (the lane)."""

    eta: str
    countdown: float
    priority: int
    queue: str


class BatchEntry(TypedDict):
    """One item of a batch."""

    kind: Literal["charge", "email", "refund", "capture", "cancel"]
    idempotency_key: str
    request: Mapping[str, Any]
    options: NotRequired[Options]


class Filters(TypedDict, total=False):
    """Which effects to list; moments are of RFC 3339."""

    state: str
    kind: str
    key: str
    key_prefix: str
    ref: str
    caused_by: str
    concerns: str
    created_since: str
    created_until: str


class Selection(TypedDict, total=False):
    """Which effects an operation is about."""

    ids: Sequence[str]
    state: Literal["parked", "unknown", "stuck"]
    kind: str
    lane: str
    older_than_seconds: float
    since: str
    until: str
    error_like: str
    group: str
    key_prefix: str
    ref: str
    operation: str
    limit: int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """`repeatable`: a second arrival changes nothing, so an answer that got lost is asked for again."""

    method: str
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    wait_seconds: float = 0.0


def quoted(key: str) -> str:
    """A key as RFC 8941 writes it. Raises ValueError for what no header can carry."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("a key is 1 to 255 printable ASCII characters without spaces")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def create(
    kind: str, key: str, request: Mapping[str, Any], options: Options | None, wait: float | None
) -> Call[Accepted]:
    """Ask for one effect; its key makes a repeat harmless."""
    seconds = None if wait is None else min(int(wait), WAIT_SECONDS_MAX)
    headers = {"Idempotency-Key": quoted(key), **({} if seconds is None else {"Prefer": f"wait={seconds}"})}
    body = {**request, **({"options": dict(options)} if options else {})}
    return Call("POST", PATHS[kind], Accepted.model_validate, body, headers, wait_seconds=float(seconds or 0))


def batch(items: Sequence[BatchEntry], *, atomic: bool) -> Call[Batch]:
    """Ask for many effects; each item's key makes a repeat harmless."""
    return Call("POST", "/v1/batch", Batch.model_validate, {"items": list(items), "atomic": atomic})


def effect(effect_id: str) -> Call[Effect]:
    """Look at one effect."""
    return Call("GET", f"/v1/effects/{_segment(effect_id)}", Effect.model_validate)


def events(effect_id: str) -> Call[list[Event]]:
    """Look at an effect's journal."""
    return Call(
        "GET",
        f"/v1/effects/{_segment(effect_id)}/events",
        lambda answer: [Event.model_validate(one) for one in answer["events"]],
    )


def page(path: str) -> Call[Page]:
    """One page of a list."""
    return Call("GET", path, Page.model_validate)


def plan(verb: str, select: Selection, *, force: bool) -> Call[Plan]:
    """Freeze a set. A second plan is another one that nobody starts, so a repeat is harmless."""
    body = {"verb": verb, "select": dict(select), "force": force}
    return Call("POST", "/v1/operations", Plan.model_validate, body)


def start(operation_id: str, how: Mapping[str, Any]) -> Call[Operation]:
    """Start a plan; what is None is the server's choice.

    Not repeatable: the second would be told that it runs already.
    """
    body = {name: value for name, value in how.items() if value is not None}
    path = f"/v1/operations/{_segment(operation_id)}/start"
    return Call("POST", path, Operation.model_validate, body, repeatable=False)


def turn(operation_id: str, verb: str, reason: str | None) -> Call[Operation]:
    """Pause, resume or cancel."""
    path = f"/v1/operations/{_segment(operation_id)}/{verb}"
    return Call("POST", path, Operation.model_validate, {"reason": reason}, repeatable=False)


def operation(operation_id: str) -> Call[Operation]:
    """Look at one operation."""
    return Call("GET", f"/v1/operations/{_segment(operation_id)}", Operation.model_validate)


def items(operation_id: str, after: int) -> Call[list[Item]]:
    """A page of an operation's set."""
    path = f"/v1/operations/{_segment(operation_id)}/items?after={after}"
    return Call("GET", path, lambda answer: [Item.model_validate(one) for one in answer["items"]])


def groups() -> Call[list[Group]]:
    """What fails in the same way."""
    return Call("GET", "/v1/groups", lambda answer: [Group.model_validate(one) for one in answer["groups"]])


def note(group_id: str, said: str) -> Call[Group]:
    """Write about a group. Not repeatable: it would stand there twice."""
    path = f"/v1/groups/{_segment(group_id)}/notes"
    return Call("POST", path, Group.model_validate, {"note": said}, repeatable=False)


def stats() -> Call[dict[str, Any]]:
    """What waits."""
    return Call("GET", "/v1/outbox/stats", dict)


def _segment(name: str) -> str:
    if not name or not all(character.isalnum() or character == "-" for character in name):
        raise ValueError("an id has letters, digits and dashes only")
    return name
