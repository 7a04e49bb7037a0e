"""Shed before falling over: what cannot be answered soon is told so at once, and probes are answered regardless.

Each request needs a thread with a connection, and there are as many as Postgres is asked for. When the database is
slow they queue here, in memory, each caller giving up and coming back: so the queue is short, and whoever does not
fit in is sent away with 503 and Retry-After before anything was read or written.
"""

from __future__ import annotations

import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.arrival import PROBES
from service.api.problem_types import TYPES
from service.api.problems import Problem, answer

# At a few milliseconds a statement and 32 threads, a second's work: whoever waits longer has mostly hung up.
WAITING_MAX = 256
# Under way in any way: reading its body, waiting for its turn or its outcome. Bounds the memory of bodies.
UNDER_WAY_MAX = 1_024


class Admission:
    """A layer of the application that counts who is inside."""

    def __init__(self, app: ASGIApp, *, waiting_max: int = WAITING_MAX, under_way_max: int = UNDER_WAY_MAX) -> None:
        self._app = app
        self._waiting_max = waiting_max
        self._under_way_max = under_way_max
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or send it away."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if self._full():
            problem = Problem("overloaded", TYPES["overloaded"].text)
            await answer(problem, request_id=scope["state"]["request_id"])(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1

    def _full(self) -> bool:
        waiting = anyio.to_thread.current_default_thread_limiter().statistics().tasks_waiting
        return waiting >= self._waiting_max or self._under_way >= self._under_way_max
