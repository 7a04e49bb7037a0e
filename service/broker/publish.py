"""The relay's side of the wire: hand over a batch, confirmed, in bounded time, or say that the broker is away.

It has a connection of its own, never one of Celery's pool: closing a pooled connection to a broker that has turned
into a black hole can hang for ever. After any error the connection is thrown away unread, and every message of the
batch may or may not have gone out (W4); the outbox publishes them again, and the lease absorbs the copies.

Messages are Celery's protocol 2, made by Celery. No signal fires on the way, so that no instrumentation replaces the
trace context that was stored with the effect.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import structlog
from kombu import Producer
from kombu.exceptions import KombuError
from uuid_utils import uuid7

from service.broker.app import App
from service.broker.confirms import Confirms, NotStored
from service.broker.connection import BrokerConnection
from service.broker.messages import VERSION, VERSION_HEADER, Message
from service.broker.queues import dead_letter_queue
from service.broker.redis_transport import refuse_cluster
from service.core.errors import DependencyUnavailable

CONFIRM_SECONDS = 5.0  # RabbitMQ confirms in milliseconds; a blocked one (memory alarm) never does
READ_SECONDS = 5.0  # the same for a reply of Redis, and for a write into a socket nobody reads
BATCH_COMMANDS = 500  # one pipeline; as many as the relay takes rows at once
GIVE_UP_SECONDS = 1.0
PROBE = "_kombu.counterfoil.probe"  # among kombu's own names, which whoever may use the broker may write
PROBE_SECONDS = 10

log = structlog.get_logger(__name__)


class Publisher:
    """One connection; for one thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._origin = f"{os.getpid()}@{socket.gethostname()}"
        self._connection: BrokerConnection | None = None
        self._channel: Any = None
        self._producer: Any = None
        self._confirms: Confirms | None = None

    def publish(self, messages: Sequence[Message]) -> None:
        """Hand over all of them, confirmed. Raises DependencyUnavailable: then each may or may not have gone out."""
        self._guarded(lambda: self._publish(messages))

    def ping(self) -> None:
        """Hand over something that nobody gets. Raises DependencyUnavailable while the broker does not take it."""
        self._guarded(self._probe)

    def close(self) -> None:
        """Let go of the connection; the next publish opens another."""
        connection, self._connection = self._connection, None
        self._channel = self._producer = self._confirms = None
        if connection is None:
            return
        try:
            connection.collect(socket_timeout=GIVE_UP_SECONDS)
        except Exception as error:  # noqa: BLE001 - a broken connection may break in any way while it is given up
            log.debug("broker_connection_dropped", error_type=type(error).__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _guarded(self, work: Any) -> None:
        address = self._app.address()  # SettingsError is for whoever set it, not an outage
        try:
            self._connect()
            work()
        except Exception as error:
            expected = self._expected()
            self.close()
            if isinstance(error, expected):
                raise DependencyUnavailable(_sentence(address.shown, error)) from None
            raise
        except BaseException:
            self.close()
            raise

    def _expected(self) -> tuple[type[BaseException], ...]:
        known = (OSError, KombuError, NotStored)
        connection = self._connection
        return known if connection is None else (*known, *connection.connection_errors, *connection.channel_errors)

    def _connect(self) -> None:
        if self._connection is not None:
            return
        address = self._app.address()
        bounds = (
            {"socket_timeout": READ_SECONDS}
            if address.is_redis
            # Confirms are counted here, a batch at a time; kombu's option would wait for each message.
            else {"read_timeout": READ_SECONDS, "write_timeout": READ_SECONDS, "confirm_publish": False}
        )
        self._connection = self._app.open_address(address, transport_options=bounds)
        # Each URL once, without kombu's pause of two seconds in between: the relay waits with patience of its own.
        tries = max(len(self._connection.alt), 1)
        self._connection.ensure_connection(max_retries=tries - 1, reraise_as_library_errors=False)
        self._channel = self._connection.channel()
        if address.is_redis:
            refuse_cluster(self._channel.client)
        self._declare(with_dead_letters=not address.is_redis)
        self._confirms = None if address.is_redis else Confirms(self._channel)
        self._producer = Producer(self._channel, serializer="json", auto_declare=False)

    def _declare(self, *, with_dead_letters: bool) -> None:
        """Queues first: RabbitMQ confirms what it cannot route, having dropped it."""
        if with_dead_letters:
            dead_letter_queue()(self._channel).declare()
        for queue in self._app.amqp.queues.values():
            queue(self._channel).declare()

    def _probe(self) -> None:
        """A broker that is full answers every question; only a write shows whether the outage is over."""
        if self._confirms is None:
            self._channel.client.set(PROBE, "", ex=PROBE_SECONDS)
            return
        self._confirms.expect()
        # Nobody's queue: confirmed at once and dropped, and blocked like any other publish while there is an alarm.
        self._producer.publish(b"", exchange="", routing_key=PROBE)
        self._confirms.wait(CONFIRM_SECONDS)

    def _publish(self, messages: Sequence[Message]) -> None:
        with self._producer.batch(max_size=BATCH_COMMANDS):
            for message in messages:
                self._send(message)
        if self._confirms is not None:
            self._confirms.wait(CONFIRM_SECONDS)

    def _send(self, message: Message) -> None:
        task_id = str(uuid7())
        envelope = self._app.amqp.as_task_v2(
            task_id,
            message.task,
            kwargs=message.kwargs(),
            # Celery prints these; a count tells enough.
            argsrepr="()",
            kwargsrepr=f"<{len(message.effect_ids)} effects>",
            root_id=task_id,
            origin=self._origin,
            ignore_result=True,
        )
        if self._confirms is not None:
            self._confirms.expect()
        self._producer.publish(
            envelope.body,
            exchange="",
            routing_key=message.lane,
            headers={**envelope.headers, VERSION_HEADER: VERSION},
            delivery_mode=2,
            mandatory=self._confirms is not None,
            **envelope.properties,
        )


# Redis that may not evict, or cannot write its file, or has become a replica.
_FULL = ("OutOfMemoryError", "ResponseError", "ReadOnlyError")


def _sentence(shown: str, error: BaseException) -> str:
    """What to look at. The library's own words may quote the URL, so only their kind is passed on."""
    if isinstance(error, NotStored):
        return f"the broker at {shown} did not take the messages: {error}; look at its memory, disk and queues"
    if type(error).__name__ in _FULL:
        return f"the broker at {shown} did not take the messages ({type(error).__name__}); look at its memory and disk"
    if getattr(error, "code", None) == 406:
        return f"the broker at {shown} has a queue of ours with other arguments; delete that queue, it is made again"
    if "auth" in type(error).__name__.lower() or getattr(error, "code", None) == 403:
        return f"the broker at {shown} refuses the user or password of COUNTERFOIL_BROKER_URL"
    return (
        f"the broker at {shown} does not answer ({type(error).__name__}); "
        "look whether it runs and whether COUNTERFOIL_BROKER_URL is right"
    )
