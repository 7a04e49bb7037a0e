"""The client for asynchronous code: the same calls, awaited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlencode

import httpx2

from service.client import calls
from service.client.answers import Accepted, Batch, Effect, Event, Group, Item, Operation, Plan
from service.client.calls import BatchEntry, Call, Filters, Options, Selection
from service.client.errors import CounterfoilProblem, StillOpen
from service.client.repeating import CONNECT_SECONDS, LOOK_FIRST_SECONDS, LOOK_SECONDS_MAX, Tries, settings, unanswered

if TYPE_CHECKING:
    from typing import Unpack

    from tasks.arguments import (
        CancelArguments,
        CaptureArguments,
        ChargeArguments,
        EmailArguments,
        RefundArguments,
    )

T = TypeVar("T")


class AsyncCounterfoil:
    """The API at `url`. `async with AsyncCounterfoil(url) as api: await api.charge("order:17:charge", amount=4200, …)`.

    `timeout` is for one answer, beside what it was asked to wait; `patience` for a call with all its repeats.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        patience: float = 60.0,
    ) -> None:
        self._timeout = timeout
        self._patience = patience
        self._http = httpx2.AsyncClient(**settings(url, api_key, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    # --- effects -----------------------------------------------------------------------------------------------

    async def charge(
        self,
        key: str,
        *,
        wait: float | None = None,
        options: Options | None = None,
        **request: Unpack[ChargeArguments],
    ) -> Accepted:
        """Charge a saved payment method once under this key; `wait` seconds for the outcome if given."""
        return await self._create("charge", key, request, options, wait)

    async def email(
        self,
        key: str,
        *,
        wait: float | None = None,
        options: Options | None = None,
        **request: Unpack[EmailArguments],
    ) -> Accepted:
        """Send one letter once under this key."""
        return await self._create("email", key, request, options, wait)

    async def refund(
        self,
        key: str,
        *,
        wait: float | None = None,
        options: Options | None = None,
        **request: Unpack[RefundArguments],
    ) -> Accepted:
        """Give money of a charge back once under this key."""
        return await self._create("refund", key, request, options, wait)

    async def capture(
        self,
        key: str,
        *,
        wait: float | None = None,
        options: Options | None = None,
        **request: Unpack[CaptureArguments],
    ) -> Accepted:
        """Take the money that a charge holds."""
        return await self._create("capture", key, request, options, wait)

    async def cancel(
        self,
        key: str,
        *,
        wait: float | None = None,
        options: Options | None = None,
        **request: Unpack[CancelArguments],
    ) -> Accepted:
        """Release the money that a charge holds."""
        return await self._create("cancel", key, request, options, wait)

    async def batch(self, items: Sequence[BatchEntry], *, atomic: bool = False) -> Batch:
        """Up to 1,000 effects at once. Raises BatchRefused when it is `atomic` and one of them does not pass."""
        return await self._do(calls.batch(items, atomic=atomic))

    async def effect(self, effect_id: str) -> Effect:
        """How an effect stands. Raises NotFound."""
        return await self._do(calls.effect(effect_id))

    async def events(self, effect_id: str) -> list[Event]:
        """What has happened to an effect, oldest first."""
        return await self._do(calls.events(effect_id))

    async def effects(self, *, limit: int = 100, **filters: Unpack[Filters]) -> AsyncIterator[Effect]:
        """All effects that fit, page by page of `limit`: newest first, by key for a `key_prefix`."""
        path: str | None = f"/v1/effects?{urlencode({**filters, 'limit': limit})}"
        while path:
            page = await self._do(calls.page(path))
            for effect in page.effects:
                yield effect
            path = page.next

    async def outcome(self, effect_id: str, *, timeout: float = 60.0) -> Effect:  # noqa: ASYNC109 - the synchronous one's word
        """The effect once it is final. A decline is an outcome. Raises StillOpen when the time is over."""
        until = time.monotonic() + timeout
        pause = LOOK_FIRST_SECONDS
        while not (effect := await self.effect(effect_id)).final:
            left = until - time.monotonic()
            if left <= 0:
                raise StillOpen(effect)
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, LOOK_SECONDS_MAX)
        return effect

    # --- operations --------------------------------------------------------------------------------------------

    async def plan(
        self, verb: Literal["replay", "park", "unpark"], *, force: bool = False, **select: Unpack[Selection]
    ) -> Plan:
        """Freeze a set and touch nothing."""
        return await self._do(calls.plan(verb, select, force=force))

    async def start(
        self,
        operation_id: str,
        *,
        reason: str,
        per_second: float | None = None,
        canary: int = 0,
        failures_max: int | None = None,
        batch: int | None = None,
    ) -> Operation:
        """Let the relay carry out a plan."""
        how = {"reason": reason, "per_second": per_second, "canary": canary, "failures_max": failures_max}
        return await self._do(calls.start(operation_id, {**how, "batch": batch}))

    async def pause(self, operation_id: str, *, reason: str | None = None) -> Operation:
        """Touch no further effect until it is resumed."""
        return await self._do(calls.turn(operation_id, "pause", reason))

    async def resume(self, operation_id: str, *, reason: str | None = None) -> Operation:
        """Go on where it was paused."""
        return await self._do(calls.turn(operation_id, "resume", reason))

    async def cancel_operation(self, operation_id: str, *, reason: str | None = None) -> Operation:
        """Never touch the rest of its set."""
        return await self._do(calls.turn(operation_id, "cancel", reason))

    async def operation(self, operation_id: str) -> Operation:
        """How far an operation is."""
        return await self._do(calls.operation(operation_id))

    async def operation_items(self, operation_id: str, *, after: int = 0) -> list[Item]:
        """A page of its set, beyond the position `after`."""
        return await self._do(calls.items(operation_id, after))

    async def groups(self) -> list[Group]:
        """What fails in the same way, largest first."""
        return await self._do(calls.groups())

    async def note(self, group_id: str, said: str) -> Group:
        """Write about a group of failures."""
        return await self._do(calls.note(group_id, said))

    async def stats(self) -> dict[str, Any]:
        """What is not settled yet, counted."""
        return await self._do(calls.stats())

    # --- the wire ----------------------------------------------------------------------------------------------

    async def _create(
        self, kind: str, key: str, request: Mapping[str, Any], options: Options | None, wait: float | None
    ) -> Accepted:
        accepted = await self._do(calls.create(kind, key, request, options, wait))
        left = (wait or 0.0) - calls.WAIT_SECONDS_MAX
        if left <= 0 or accepted.effect is None or accepted.effect.final:
            return accepted
        try:
            effect = await self.outcome(accepted.id, timeout=left)
        except StillOpen as error:
            effect = error.effect
        return accepted.model_copy(update={"state": effect.state, "effect": effect})

    async def _do(self, call: Call[T]) -> T:
        tries = Tries(call, self._patience, time.monotonic())
        while True:
            try:
                response = await self._http.request(
                    call.method,
                    call.path,
                    json=call.body,
                    headers=call.headers,
                    timeout=httpx2.Timeout(
                        self._timeout + call.wait_seconds, connect=min(self._timeout, CONNECT_SECONDS)
                    ),
                )
            except httpx2.TransportError as error:
                pause = tries.pause_without(error, time.monotonic())
                if pause is None:
                    raise unanswered(error) from error
            else:
                answer = tries.read(response)
                if not isinstance(answer, CounterfoilProblem):
                    return answer
                pause = tries.pause_after(answer, response, time.monotonic())
                if pause is None:
                    raise answer
            await asyncio.sleep(pause)
