"""Wait for an outcome without holding a thread or a connection; however many wait, Postgres is asked only so often."""

from __future__ import annotations

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI

from service.api.views import Effect
from tasks.result import WAIT_FIRST_SECONDS, WAIT_MAX_SECONDS, EffectResult

WAITERS_MAX = 512
"""More than these are answered at once, which RFC 7240 allows: a wish, not a demand."""
LOOKS_PER_SECOND_MAX = (
    400  # a tenth of what Postgres does beside its work; with 100 waiters each looks 4 times a second
)


async def settled(app: FastAPI, result: EffectResult, seconds: int) -> tuple[Effect, bool]:
    """How the effect stands once it is settled, the wait is over, or this process is told to stop.

    The second value is whether there was a place to wait in.
    """
    if app.state.waiters >= WAITERS_MAX:
        return Effect.of(await run_sync(result.refresh)), False
    app.state.waiters += 1
    try:
        return await _watch(app, result, seconds), True
    finally:
        app.state.waiters -= 1


async def _watch(app: FastAPI, result: EffectResult, seconds: int) -> Effect:
    until = anyio.current_time() + seconds
    pause = WAIT_FIRST_SECONDS
    while True:
        effect = Effect.of(await run_sync(result.refresh))
        left = until - anyio.current_time()
        if effect.final or left <= 0 or app.state.draining:
            return effect
        await anyio.sleep(min(pause, left))
        pause = max(min(pause * 1.5, WAIT_MAX_SECONDS), app.state.waiters / LOOKS_PER_SECOND_MAX)
