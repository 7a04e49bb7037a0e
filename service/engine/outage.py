"""Waiting out an outage: the only use of tenacity, around work that is provably safe to repeat.

One log line when a dependency goes away and one when it is back, whatever number of threads are waiting.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from service.core.errors import DependencyUnavailable

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.05
WAIT_MAX_SECONDS = 3.0  # a server that is back is used within this; random, so that all do not knock at once

log = structlog.get_logger(__name__)
_lock = threading.Lock()
_away_since: dict[str, float] = {}


def patiently(work: Callable[[], T], *, what: str, enough: Callable[[], bool], sleep: Callable[[float], object]) -> T:
    """Do `work`, and again while it raises DependencyUnavailable, until `enough()` says to stop.

    `work` must be safe to repeat: a guarded statement, a batch that comes due again. `sleep` takes seconds and may
    return early. Raises the last DependencyUnavailable when stopped.
    """
    try:
        answer = work()  # the usual case, without the machinery
    except DependencyUnavailable as error:
        if enough():
            raise
        went_away(what, error)
        answer = _again(work, what, enough, sleep)
    _is_back(what)
    return answer


def _again(work: Callable[[], T], what: str, enough: Callable[[], bool], sleep: Callable[[float], object]) -> T:
    def note(state: RetryCallState) -> None:
        went_away(what, state.outcome.exception() if state.outcome else None)

    def pause(seconds: float) -> None:
        sleep(seconds)

    retrying = Retrying(
        retry=retry_if_exception_type(DependencyUnavailable),
        wait=wait_random_exponential(multiplier=0.05, max=WAIT_MAX_SECONDS),
        stop=lambda _: enough(),
        before_sleep=note,
        sleep=pause,
        reraise=True,
    )
    pause(random.uniform(0.0, FIRST_WAIT_SECONDS))  # noqa: S311 - jitter, no secret
    return retrying(work)


def went_away(what: str, error: BaseException | None) -> None:
    """Say so, once until it is back."""
    with _lock:
        if what in _away_since:
            return
        _away_since[what] = monotonic()
    log.warning("outage", dependency=what, error=str(error))


def _is_back(what: str) -> None:
    if what not in _away_since:  # the usual case, without the lock
        return
    with _lock:
        since = _away_since.pop(what, None)
    if since is not None:
        log.warning("outage_over", dependency=what, seconds=round(monotonic() - since, 1))
