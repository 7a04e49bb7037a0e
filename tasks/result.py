"""The handle a caller gets: which effect, and its outcome, read from Postgres and never from a result backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Self

from service.core.effect import Accepted
from service.core.errors import EffectNotFound
from service.core.state import FINAL, State
from service.store import effects
from service.store.database import statement

# Waiting asks Postgres: quickly at first, because most effects settle in milliseconds, then calmly.
WAIT_FIRST_SECONDS = 0.01
WAIT_MAX_SECONDS = 0.25


class EffectResult:
    """`id` (UUID string), `state` (as of the last look), `created` (False: the key was accepted before).

    Shaped like Celery's AsyncResult as far as groups need it.
    """

    parent = None
    children = None
    supports_native_join = False

    def __init__(self, effect_id: str, state: State = State.PENDING, *, created: bool | None = None) -> None:
        self.id = effect_id
        self.state = state
        self.created = created

    def __repr__(self) -> str:
        return f"<EffectResult {self.id} {self.state.value}>"

    @property
    def task_id(self) -> str:
        """Celery's name for the id."""
        return self.id

    def become(self, accepted: Accepted) -> Self:
        """Take the identity of the effect that carries the key."""
        self.id, self.state, self.created = accepted.id, accepted.state, accepted.created
        return self

    def refresh(self) -> dict[str, Any]:
        """Look again; returns the effect's columns. Raises EffectNotFound before the caller's commit."""
        with statement() as connection:
            row = effects.get(connection, self.id)
        if row is None:
            raise EffectNotFound(f"no effect {self.id}: if it was accepted in your transaction, commit that first")
        self.state = State(row["state"])
        return row

    def ready(self) -> bool:
        """Whether the outcome is final."""
        return self.state in FINAL or State(self.refresh()["state"]) in FINAL

    def successful(self) -> bool:
        """Whether the provider has it."""
        self.ready()
        return self.state is State.SUCCEEDED

    def get(self, timeout: float | None = None, **_celery: Any) -> dict[str, Any]:
        """Wait up to `timeout` seconds for the settled outcome: {"state": "succeeded" | "failed", …details}.

        A decline is an outcome, not an exception. Raises TimeoutError naming where the effect stands;
        EffectNotFound while the caller's transaction is open. Unknown Celery arguments of `get` are ignored.
        """
        for pause in self._pauses(timeout):
            if (settled := self._outcome()) is not None:
                return settled
            time.sleep(pause)
        raise self._too_early(timeout)

    async def get_async(self, timeout: float | None = None) -> dict[str, Any]:  # noqa: ASYNC109 - `get`'s own word
        """`get` for asynchronous code: the event loop goes on meanwhile. Raises what `get` does."""
        for pause in self._pauses(timeout):
            if (settled := await asyncio.to_thread(self._outcome)) is not None:
                return settled
            await asyncio.sleep(pause)
        raise self._too_early(timeout)

    def _outcome(self) -> dict[str, Any] | None:
        row = self.refresh()
        return {"state": self.state.value, **row["outcome"]} if self.state in FINAL else None

    @staticmethod
    def _pauses(timeout: float | None) -> Iterator[float]:
        """How long to wait after each look: at least one look, and none after the time is over."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = WAIT_FIRST_SECONDS
        yield pause
        while until is None or time.monotonic() < until:
            pause = min(pause * 1.5, WAIT_MAX_SECONDS)
            yield pause if until is None else max(0.0, min(pause, until - time.monotonic()))

    def _too_early(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"effect {self.id} is {self.state.value} after {timeout} s; it will go on by itself")

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Self:  # noqa: ARG002 - Celery's signature
        """Groups register a barrier here; outcomes come from Postgres, so nothing is called back."""
        return self
