"""Combining: whatever waits is done in one statement and one commit, without a thread of its own.

The first caller to find nobody at work does the work, for everybody who is waiting by then; the others wait for their
share of its answer. Under load a commit carries many settlements; at rest a settlement waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from time import sleep
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Effects that were claimed together end together: the first one to end waits this long for the others.
LINGER_SECONDS = 0.001
BATCH_MAX = 128  # one statement's share: larger ones gain nothing and hold row locks longer


class Combiner(Generic[T, R]):
    """Turns a function over a batch into a function over one item, safe to call from any number of threads.

    `work` gets 1 to BATCH_MAX items and returns their answers in order, or raises: then every caller of that batch
    gets the exception. `company()` says whether others are likely to come within the next moment.
    """

    def __init__(self, work: Callable[[Sequence[T]], Sequence[R]], company: Callable[[], bool] = lambda: False) -> None:
        self._work = work
        self._company = company
        self._lock = threading.Lock()
        self._waiting: list[tuple[T, Future[R]]] = []
        self._busy = False

    def __call__(self, item: T) -> R:
        """Do the work for `item`, together with whoever else waits."""
        mine: Future[R] = Future()
        with self._lock:
            self._waiting.append((item, mine))
            leader = not self._busy
            self._busy = True
        if leader:
            if self._company():
                sleep(LINGER_SECONDS)
            self._lead()
        return mine.result()

    def _lead(self) -> None:
        while batch := self._next():
            try:
                answers = self._work([item for item, _ in batch])
            except BaseException as error:
                for _, future in batch:
                    future.set_exception(error)
                if not isinstance(error, Exception):
                    self._give_up(error)
                    raise
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    future.set_result(answer)

    def _next(self) -> list[tuple[T, Future[R]]]:
        with self._lock:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            self._busy = bool(batch)
            return batch

    def _give_up(self, error: BaseException) -> None:
        # The leader itself is being killed (SystemExit, GreenletExit): nobody may wait for it for ever.
        with self._lock:
            stranded, self._waiting, self._busy = self._waiting, [], False
        for _, future in stranded:
            future.set_exception(error)
