"""When to ask again: only what is provably safe, under the same key, no sooner than the server says, and not for ever.

connect failed, pool full          nothing has left this process           again
429, 408, 503 overloaded           the server says that it did nothing     again, after Retry-After
lost or late answer, other 5xx     may have been done                      again only what is repeatable
any other answer                   that is the answer                      never
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx2

from service.client import errors
from service.client.answers import Problem
from service.client.calls import Call

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.2
PAUSE_SECONDS_MAX = 5.0
CONNECT_SECONDS = 3.0
LOOK_FIRST_SECONDS = 0.05
LOOK_SECONDS_MAX = 2.0
"""Waiting for an outcome asks quickly at first, because most effects settle within a second, then calmly."""
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_NOTHING_DONE = frozenset({"rate_limited", "request_timeout", "overloaded"})


@dataclass(slots=True)
class Tries(Generic[T]):
    """The tries of one call. `patience_seconds` is for all of them together."""

    call: Call[T]
    patience_seconds: float
    began: float
    number: int = 0

    def read(self, response: httpx2.Response) -> T | errors.CounterfoilProblem:
        """The answer, or the problem it is."""
        if response.is_success:
            return self.call.read(response.json())
        return errors.of(_problem(response))

    def pause_after(self, error: errors.CounterfoilProblem, response: httpx2.Response, now: float) -> float | None:
        """Seconds until the next try, None when this was the last."""
        if not isinstance(error, errors.Unavailable):
            return None
        if not self.call.repeatable and error.code not in _NOTHING_DONE:
            return None
        return self._pause(now, at_least=_retry_after(response))

    def pause_without(self, error: httpx2.TransportError, now: float) -> float | None:
        """The same after no answer at all."""
        return self._pause(now) if self.call.repeatable or isinstance(error, _NOT_SENT) else None

    def _pause(self, now: float, at_least: float = 0.0) -> float | None:
        # Full jitter, so that callers who were sent away together do not come back together.
        most = min(PAUSE_SECONDS_MAX, FIRST_PAUSE_SECONDS * 2**self.number)
        pause = at_least + random.uniform(0, most)  # noqa: S311 - no secret
        self.number += 1
        return pause if now + pause - self.began <= self.patience_seconds else None


def unanswered(error: httpx2.TransportError) -> errors.Unavailable:
    """The exception for no answer at all."""
    problem = Problem(
        code="no_answer",
        status=0,
        title="No answer",
        detail=f"{type(error).__name__}: {error}; send the same request with the same key again",
        retryable=True,
    )
    return errors.Unavailable(problem, sent=not isinstance(error, _NOT_SENT))


def settings(url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """How httpx2 is set up: a short connect, no proxies of the environment, no redirects."""
    return {
        "base_url": url.rstrip("/"),
        "headers": {
            "Accept": "application/json",
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        },
        "timeout": httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        "trust_env": False,
        "follow_redirects": False,
    }


def _retry_after(response: httpx2.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else 0.0


def _problem(response: httpx2.Response) -> Problem:
    try:
        return Problem.model_validate(response.json())
    except ValueError:
        # Not from us: a gateway in between. What it did with the request is not known.
        return Problem(
            code="not_a_problem",
            status=response.status_code,
            title="Not an answer of the API",
            detail=f"status {response.status_code} without a problem document",
            retryable=response.status_code >= 500,
        )
