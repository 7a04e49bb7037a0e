"""One class binds a kind of effect to a Celery task: callers' ways in all lead to accept, workers' to execute.

What Celery offers beyond that either stays exactly-once or raises `NotExactlyOnce` naming the way that does.
"""

from __future__ import annotations

import os
import re
import socket
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NoReturn

import structlog
from celery import Task
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from uuid_utils import uuid7

from service import settings
from service.broker.messages import read_effect_ids
from service.core.card import refuse_card_numbers
from service.core.effect import Order, Policy
from service.core.errors import NotExactlyOnce, ValidationError
from service.core.keys import check_dedupe_key, check_name, fingerprint
from service.core.text import refuse_unstorable_text
from service.engine.accept import accept, accept_alone
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.telemetry.context import current_context
from tasks.result import EffectResult

DEFAULT_TENANT = "default"
ORDERS_MAX = 10_000  # effects in one call: a few seconds of one transaction, no more

# Celery hands these along for its own bookkeeping (groups, signatures); they mean nothing to an effect.
_BOOKKEEPING = frozenset(
    {
        "task_id",
        "producer",
        "add_to_parent",
        "group_id",
        "group_index",
        "root_id",
        "parent_id",
        "reply_to",
        "chord",
        "link",
        "link_error",
        "chain",
        "shadow",
        "ignore_result",
    }
)
_TASK_ID = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
_FOLLOW_UP = (
    "{name} cannot carry {option}: a callback would run on a message, and messages get lost and doubled. "
    "Accept the next effect in the same transaction, or when you see this one succeeded"
)

log = structlog.get_logger(__name__)
_frozen: weakref.WeakValueDictionary[str, EffectResult] = weakref.WeakValueDictionary()


def actor() -> str:
    """Who writes: host and process, for the journal."""
    return f"{socket.gethostname()}:{os.getpid()}"


@cache
def _executor(pid: int) -> Executor:  # noqa: ARG001 - the pid is the key: threads and sockets do not survive a fork
    return Executor(settings.load(), actor=actor())


class EffectTask(Task):  # type: ignore[type-arg]
    """A Celery task whose calls are accepted into the outbox and whose messages carry effect ids only."""

    abstract = True
    typing = False
    model: type[BaseModel]
    kind: Kind

    def money(self, request: Mapping[str, Any]) -> tuple[int | None, str | None]:  # noqa: ARG002 - kinds override it
        """Minor units and currency of a request; two Nones when no money moves."""
        return None, None

    def policy(self, request: Mapping[str, Any]) -> Policy:  # noqa: ARG002 - kinds override it
        """What to do after an unknown outcome at a blind provider."""
        return Policy.AT_MOST_ONCE

    def freeze_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add what must not change between attempts but is not the caller's to repeat (a sender address)."""
        return request

    # --- the caller's side -------------------------------------------------------------------------------------

    def apply_async(  # type: ignore[override]
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        dedupe_key: str | None = None,
        session: Any = None,
        eta: datetime | None = None,
        countdown: float | None = None,
        priority: int | None = None,
        queue: str | None = None,
        tenant: str | None = None,
        **options: Any,
    ) -> EffectResult:
        """Accept one effect and return its handle; the provider is called later, by a worker, exactly once.

        `kwargs` is the request, `dedupe_key` its name for ever. With `session` (SQLAlchemy Session or Connection) it
        joins the caller's transaction; without, it is committed on return. `eta`/`countdown` (seconds) wait in
        Postgres, `priority` 0–9 (9 first) orders the backlog, `queue` names the lane.
        Raises ValidationError, DedupeConflict, NotExactlyOnce before anything is written; DependencyUnavailable.
        """
        order = self.order(
            args,
            kwargs,
            dedupe_key=dedupe_key,
            eta=eta,
            countdown=countdown,
            priority=priority,
            queue=queue,
            tenant=tenant,
            **options,
        )
        [accepted] = (
            accept(_sync(session), [order], actor=actor())
            if session is not None
            else accept_alone([order], actor=actor())
        )
        result = _frozen.get(str(options.get("task_id"))) or EffectResult(accepted.id)
        return result.become(accepted)

    def apply_many(self, calls: Sequence[Mapping[str, Any]], *, session: Any = None) -> list[EffectResult]:
        """Accept up to 10,000 effects in one transaction, all or none; each call holds `apply_async`'s keywords."""
        if len(calls) > ORDERS_MAX:
            raise ValidationError(f"{len(calls)} effects in one call; the limit is {ORDERS_MAX}", field="calls")
        orders = [self.order(**call) for call in calls]
        if not orders:
            return []
        accepted = (
            accept(_sync(session), orders, actor=actor())
            if session is not None
            else accept_alone(orders, actor=actor())
        )
        return [EffectResult(a.id, a.state, created=a.created) for a in accepted]

    def delay(self, *args: Any, **kwargs: Any) -> EffectResult:  # type: ignore[override]
        """`delay(dedupe_key=…, session=…, amount=…, …)`: the keywords of the call and the request side by side."""
        own = {name: kwargs.pop(name) for name in ("dedupe_key", "session") if name in kwargs}
        return self.apply_async(args, kwargs, **own)

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
        self._refuse(options)
        key = check_dedupe_key(dedupe_key)
        request, mark = self._request(kwargs or {})
        amount, currency = self.money(request)
        return Order(
            id=str(uuid7()),
            tenant=check_name(tenant if tenant is not None else DEFAULT_TENANT, field="tenant"),
            kind=self.name,
            dedupe_key=key,
            fingerprint=mark,
            request=request,
            lane=_lane(queue if queue is not None else self.name),
            policy=self.policy(request),
            priority=_priority(priority),
            not_before=_not_before(eta, countdown),
            amount=amount,
            currency=currency,
            context=current_context(),
        )

    def _request(self, kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        refuse_unstorable_text(kwargs, field="kwargs")
        refuse_card_numbers(dict(kwargs), field="kwargs")
        try:
            model = self.model.model_validate(dict(kwargs))
        except PydanticError as error:
            raise _sentence(error) from None
        # The fingerprint speaks of what the caller said: defaults that a later version adds do not change it.
        said = model.model_dump(mode="json", exclude_defaults=True)
        return self.freeze_request(model.model_dump(mode="json", exclude_none=True)), fingerprint(self.name, said)

    def _refuse(self, options: Mapping[str, Any]) -> None:
        for option in ("link", "link_error", "chain", "chord"):
            if options.get(option):
                raise NotExactlyOnce(_FOLLOW_UP.format(name=self.name, option=option), field=option)
        unknown = sorted(set(options) - _BOOKKEEPING)
        if unknown:
            raise ValidationError(
                f"{self.name}.apply_async does not take {unknown[0]!r}: times, retries and routes of an effect "
                "belong to the outbox (eta, countdown, priority, queue, tenant)",
                field=unknown[0],
            )

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


def _lane(lane: object) -> str:
    name = check_name(lane, field="queue")
    lanes = settings.load().lane_names
    if name not in lanes:
        raise ValidationError(
            f"queue {name!r} is not a lane; COUNTERFOIL_LANES names {', '.join(lanes)}; a worker must serve it (-Q)",
            field="queue",
        )
    return name


def _priority(priority: object) -> int:
    if priority is None:
        return 0
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
        raise ValidationError(
            f"priority must be an integer from 0 to 9 (9 goes first), not {priority!r}", field="priority"
        )
    return priority


def _not_before(eta: object, countdown: object) -> datetime | None:
    if eta is not None and countdown is not None:
        raise ValidationError("pass eta or countdown, not both", field="eta")
    if countdown is not None:
        if isinstance(countdown, bool) or not isinstance(countdown, int | float) or not 0 <= countdown <= 366 * 86400:
            raise ValidationError("countdown must be seconds from 0 to a year", field="countdown")
        return datetime.now(UTC) + timedelta(seconds=countdown)
    if eta is None:
        return None
    if not isinstance(eta, datetime) or eta.tzinfo is None:
        raise ValidationError("eta must be a datetime with a time zone (datetime.now(UTC) + …)", field="eta")
    return eta


def _sync(session: Any) -> Any:
    if type(session).__module__.startswith("sqlalchemy.ext.asyncio"):
        raise ValidationError(
            "session is asynchronous; write: await session.run_sync(lambda s: charge.apply_async(…, session=s))",
            field="session",
        )
    if not hasattr(session, "execute"):
        raise ValidationError(
            f"session must be a SQLAlchemy Session or Connection, not {type(session).__name__}", field="session"
        )
    return session


def _sentence(error: PydanticError) -> ValidationError:
    first = error.errors(include_input=False, include_url=False)[0]
    if isinstance(ours := first.get("ctx", {}).get("error"), ValidationError):
        return ours  # it knows its field; pydantic knows only where the validator hangs
    field = ".".join(str(part) for part in first["loc"]) or "kwargs"
    message = first["msg"].removeprefix("Value error, ")
    return ValidationError(message if message.startswith(field) else f"{field}: {message}", field=field)
