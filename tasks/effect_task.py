"""One class binds a kind of effect to a Celery task: callers' ways in all lead to accept, workers' to execute.

What Celery offers beyond that either stays exactly-once or raises `NotExactlyOnce` naming the way that does.
"""

from __future__ import annotations

import os
import re
import socket
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NoReturn, overload

import structlog
from celery import Task
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from typing_extensions import TypeVar
from uuid_utils import uuid7

from service import settings
from service.broker.messages import read_effect_ids
from service.core.card import refuse_card_numbers
from service.core.effect import Accepted, Order, Policy, Ready
from service.core.errors import NotExactlyOnce, ValidationError
from service.core.keys import check_dedupe_key, check_name, fingerprint
from service.core.text import refuse_unstorable_text
from service.engine.accept import accept, accept_alone
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.store.database import Caller
from service.telemetry.context import current_context
from tasks import rules
from tasks.result import EffectResult

if TYPE_CHECKING:  # most callers have no use for it, and it takes long to load
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    AsyncCaller = AsyncSession | AsyncConnection

DEFAULT_TENANT = "default"
ORDERS_MAX = 10_000  # effects in one call: a few seconds of one transaction, no more

R = TypeVar("R", bound=Mapping[str, Any], default=Any)
"""What the calls of a kind may hold (`tasks.arguments`), so that type checkers and editors know it."""

_TASK_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
log = structlog.get_logger(__name__)
_frozen: weakref.WeakValueDictionary[str, EffectResult] = weakref.WeakValueDictionary()


def actor() -> str:
    """Who writes: host and process, for the journal."""
    return f"{socket.gethostname()}:{os.getpid()}"


@cache
def _executor(pid: int) -> Executor:  # noqa: ARG001 - the pid is the key: threads and sockets do not survive a fork
    return Executor(settings.load(), actor=actor())


class EffectTask(Task, Generic[R]):  # type: ignore[type-arg]
    """A Celery task whose calls are accepted into the outbox and whose messages carry effect ids only."""

    abstract = True
    typing = False
    model: type[BaseModel]
    kind: Kind
    lane: str | None = None
    """The Celery queue unless the caller names one; None: the task's own name."""

    def money(self, request: Mapping[str, Any]) -> tuple[int | None, str | None]:  # noqa: ARG002 - kinds override it
        """Minor units and currency of a request; two Nones when no money moves."""
        return None, None

    def policy(self, request: Mapping[str, Any]) -> Policy:  # noqa: ARG002 - kinds override it
        """What to do after an unknown outcome at a blind provider."""
        return Policy.AT_MOST_ONCE

    def concerns(self, request: Mapping[str, Any]) -> tuple[str | None, Ready | None]:  # noqa: ARG002 - the same
        """The effect that this one acts upon, and what that one must be first; two Nones for most."""
        return None, None

    def freeze_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add what must not change between attempts but is not the caller's to repeat (a sender address)."""
        return request

    # --- the caller's side -------------------------------------------------------------------------------------

    @overload  # type: ignore[override]
    def apply_async(
        self,
        args: None = None,
        kwargs: R | None = None,
        *,
        dedupe_key: str,
        session: Caller | None = None,
        eta: datetime | None = None,
        countdown: float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        tenant: str | None = None,
        **options: Any,
    ) -> EffectResult: ...

    @overload
    def apply_async(
        self,
        args: None = None,
        kwargs: R | None = None,
        *,
        dedupe_key: str,
        session: AsyncCaller,
        eta: datetime | None = None,
        countdown: float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        tenant: str | None = None,
        **options: Any,
    ) -> Coroutine[Any, Any, EffectResult]: ...

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        dedupe_key: str | None = None,
        session: Caller | AsyncCaller | None = None,
        **options: Any,
    ) -> EffectResult | Coroutine[Any, Any, EffectResult]:
        """Accept one effect and return its handle; the provider is called later, by a worker, exactly once.

        `kwargs` is the request, `dedupe_key` its name for ever. With `session` (SQLAlchemy Session or Connection) it
        joins the caller's transaction; without, it is committed on return. An asynchronous session or connection
        gives a coroutine: `await` it. `eta`/`countdown` (seconds) wait in Postgres, `priority` 0–9 (9 first) orders
        the backlog, `queue` names the lane, `tenant` whose keys these are.
        Raises ValidationError, DedupeConflict, NotExactlyOnce before anything is written; DependencyUnavailable.
        """
        order = self.order(args, kwargs, dedupe_key=dedupe_key, **options)
        handle = _frozen.get(str(options.get("task_id"))) or EffectResult(order.id)
        if hasattr(session, "run_sync"):
            return self._joined(order, handle, session)
        return handle.become(self.put(order, session=session))

    async def _joined(self, order: Order, handle: EffectResult, session: Any) -> EffectResult:
        return handle.become(await session.run_sync(lambda caller: self.put(order, session=caller)))

    def put(self, order: Order, *, session: Any = None) -> Accepted:
        """Accept what `order` has checked. Raises ValidationError when the books do not fit it, DedupeConflict."""
        if session is None:
            [accepted] = accept_alone([order], actor=actor())
        else:
            [accepted] = accept(rules.synchronous(session), [order], actor=actor())
        return accepted

    def apply_many(self, calls: Sequence[Mapping[str, Any]], *, session: Any = None) -> list[EffectResult]:
        """Accept up to 10,000 effects in one transaction, all or none; each call holds `apply_async`'s keywords."""
        if len(calls) > ORDERS_MAX:
            raise ValidationError(f"{len(calls)} effects in one call; the limit is {ORDERS_MAX}", field="calls")
        orders = [self.order(**call) for call in calls]
        if not orders:
            return []
        accepted = (
            accept(rules.synchronous(session), orders, actor=actor())
            if session is not None
            else accept_alone(orders, actor=actor())
        )
        return [EffectResult(a.id, a.state, created=a.created) for a in accepted]

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """`delay(dedupe_key=…, session=…, amount=…, …)`: the keywords of the call and the request side by side.

        Returns what `apply_async` does. Only that one is known to type checkers.
        """
        own = {name: kwargs.pop(name) for name in ("dedupe_key", "session") if name in kwargs}
        call: Any = self.apply_async
        return call(args, kwargs, **own)

    def order(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        dedupe_key: str | None = None,
        eta: datetime | None = None,
        countdown: float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        tenant: str | None = None,
        **options: Any,
    ) -> Order:
        """Check one call as a whole. Raises ValidationError or NotExactlyOnce; writes nothing."""
        if args:
            raise ValidationError(f"{self.name} takes its request by name: pass kwargs={{…}}", field="args")
        rules.refuse_options(self.name, options)
        key = check_dedupe_key(dedupe_key)
        request, mark = self._request({} if kwargs is None else kwargs)
        amount, currency = self.money(request)
        concerns, ready_when = self.concerns(request)
        return Order(
            id=str(uuid7()),
            tenant=check_name(tenant if tenant is not None else DEFAULT_TENANT, field="tenant"),
            kind=self.name,
            dedupe_key=key,
            fingerprint=mark,
            request=request,
            lane=rules.lane(queue if queue is not None else self.lane or self.name),
            policy=self.policy(request),
            priority=rules.priority(priority),
            not_before=rules.not_before(eta, countdown),
            after_seconds=rules.after_seconds(countdown),
            amount=amount,
            currency=currency,
            concerns=concerns,
            ready_when=ready_when,
            context=current_context(),
        )

    def _request(self, kwargs: object) -> tuple[dict[str, Any], str]:
        if not isinstance(kwargs, Mapping):
            raise ValidationError(f"kwargs must hold names and values, not {type(kwargs).__name__}", field="kwargs")
        refuse_unstorable_text(kwargs, field="kwargs")
        refuse_card_numbers(dict(kwargs), field="kwargs")
        try:
            model = self.model.model_validate(dict(kwargs))
        except PydanticError as error:
            raise rules.sentence(error) from None
        # The fingerprint speaks of what the caller said: defaults that a later version adds do not change it.
        said = model.model_dump(mode="json", exclude_defaults=True)
        return self.freeze_request(model.model_dump(mode="json", exclude_none=True)), fingerprint(self.name, said)

    def AsyncResult(self, task_id: str, **_: Any) -> EffectResult:  # type: ignore[override] # noqa: N802 - Celery's name
        """The handle of a signature that a group has frozen but not called yet; calling gives it its identity."""
        return _frozen.setdefault(task_id, EffectResult(task_id))

    # --- what cannot be exactly-once ---------------------------------------------------------------------------

    def apply(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: an eager call would reach the provider without a record."""
        raise NotExactlyOnce(f"{self.name}.apply would run without a record; call apply_async, then result.get()")

    def map(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: it would be one message for many effects, accepted nowhere."""
        raise NotExactlyOnce(
            f"{self.name}.map has no dedupe keys; call apply_many([{{'kwargs': …, 'dedupe_key': …}}, …])"
        )

    starmap = map  # noqa: A003 - Celery's names
    chunks = map  # noqa: A003 - the same

    def retry(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: a retry of Celery's is dropped when the broker is away."""
        raise NotExactlyOnce(f"{self.name} retries by itself, through the outbox; see `counterfoil outbox replay`")

    def replace(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: the message is only a hint, replacing it replaces nothing."""
        raise NotExactlyOnce(f"{self.name} cannot be replaced; accept another effect with a key of its own")

    # --- the worker's side -------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """A worker's way in. Raises NotExactlyOnce when a caller calls the task like a function."""
        if self.request.called_directly:
            raise NotExactlyOnce(f"{self.name}(…) would run without a record; call apply_async, then result.get()")
        self.run(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> None:
        """A message arrived: execute the effects it names. Whatever else it holds is dropped with one log line."""
        try:
            ids = read_effect_ids(args, kwargs)
        except ValidationError as error:
            log.warning("message_dropped", task=self.name, reason=str(error))
            return
        _executor(os.getpid()).run(self.kind, ids, task_id=_printable_id(self.request.id))


def _printable_id(task_id: object) -> str | None:
    """The message's own id for log lines: it came from the broker, so it must look like an id."""
    return task_id if isinstance(task_id, str) and _TASK_ID.match(task_id) else None
