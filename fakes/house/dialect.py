"""How a provider speaks: its endpoints, its key rules, its refusals and its headers.

`fakes.house.pipeline` decides in which order things happen to a request; a `Dialect` says them in one provider's words.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fakes.house.idempotency import Answer, KeyRules

Refusal = Literal["unauthorized", "rate_limited", "unknown_route", "key_too_long", "key_in_use", "server_error"]


class Refused(Exception):
    """An endpoint or a parameter check says no, with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it came in."""

    seq: int
    request_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    query: str
    body: bytes
    key: str | None
    at: float

    @property
    def address(self) -> str:
        """What a fault's `key` is looked for in: the idempotency key, then the path."""
        return f"{self.key or ''} {self.path}"


@dataclass(frozen=True, slots=True)
class Call:
    """What an endpoint gets: an open transaction, checked parameters, and who asks."""

    connection: sqlite3.Connection
    arrival: Arrival
    params: Mapping[str, Any]
    path_id: str | None

    @property
    def now(self) -> int:
        """Whole seconds, as objects carry them."""
        return int(self.arrival.at)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: its name in the fault plan, its address, its parameters' check, and what it does."""

    name: str
    method: str
    path: re.Pattern[str]
    parse: Callable[[Arrival], Mapping[str, Any]]
    run: Callable[[Call], Answer]


class Dialect(Protocol):
    """How one provider speaks: its routes, its key rules, its refusals, its headers."""

    @property
    def rules(self) -> KeyRules:
        """What it keeps under a key."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """Its endpoints."""

    def account(self, arrival: Arrival) -> str | None:
        """Whose keys these are; None when the caller may not come in."""

    def refusal(self, why: Refusal, arrival: Arrival, code: str | None = None) -> Answer:
        """Its words for a refusal; `code` chooses among variants."""

    def mismatch(self, arrival: Arrival, first_path: str) -> Answer:
        """Its words for a key that belongs to another request."""

    def headers(self, arrival: Arrival, answer: Answer, original: str | None) -> dict[str, str]:
        """The headers of an answer; `original` is set when it is replayed."""


def find(routes: tuple[Route, ...], method: str, path: str) -> tuple[Route | None, str | None]:
    """The endpoint at an address, and the id in the path."""
    for route in routes:
        if route.method == method and (match := route.path.fullmatch(path)):
            return route, match.groupdict().get("id")
    return None, None
