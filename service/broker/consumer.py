"""The worker's consumer: survives a broker that restarts and messages that nobody of us wrote.

Three things differ from Celery's. A busy worker does not die when Redis restarts (`BrokerConnection.give_up`). What is
malformed or foreign is dropped with one line that holds neither body nor headers; Celery logs both in full. And
the parts that talk to other workers (mingle, gossip, event heartbeats, 28 queues for delayed delivery) are off
whatever the command line says: they cost a second per reconnect and a quarter of the throughput, and nobody listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import structlog
from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer.connection import Connection as ConnectionStep
from kombu.exceptions import ContentDisallowed

from service.broker.connection import BrokerConnection
from service.broker.envelope import MESSAGE_BYTES_MAX, message_flaw, plain_headers, safe_task_name
from service.broker.queues import dead_letter_queue

log = structlog.get_logger(__name__)
_celery_log = logging.getLogger("celery.worker.consumer")

# A stop signal only sets a flag, which an idle event loop reads when it wakes. Celery's event heartbeat, off here, woke
# it every two seconds; without it a worker on RabbitMQ takes up to fifteen seconds to stop.
WAKE_SECONDS = 0.5

_OFF = {"without_mingle": True, "without_gossip": True, "without_heartbeat": True}


class DeadLetters(bootsteps.StartStopStep):
    """Declares where RabbitMQ puts what it gives up, before anything can be given up."""

    requires = (ConnectionStep,)

    def start(self, c: Any) -> None:
        """Runs at every (re)connect: a broker that was wiped has forgotten the queue."""
        if c.connection.transport.driver_type == "amqp":
            dead_letter_queue()(c.connection.default_channel).declare()


class Consumer(CeleryConsumer):
    """Named by `worker_consumer`, so that a plain `celery -A tasks worker` has it too."""

    connection_errors: tuple[type[BaseException], ...]
    channel_errors: tuple[type[BaseException], ...]

    class Blueprint(CeleryConsumer.Blueprint):  # type: ignore[misc,valid-type]
        """Celery's steps without those nobody of us uses."""

        default_steps: ClassVar[list[Any]] = [
            ConnectionStep,
            DeadLetters,
            "celery.worker.consumer.mingle:Mingle",
            "celery.worker.consumer.events:Events",
            "celery.worker.consumer.gossip:Gossip",
            "celery.worker.consumer.heart:Heart",
            "celery.worker.consumer.control:Control",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, **_OFF})

    def register_with_event_loop(self, hub: Any) -> None:
        """At each (re)connect; the timers of the connection before are gone by then."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(WAKE_SECONDS, _wake)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """The broker went away under us."""
        if isinstance(self.connection, BrokerConnection) and self.connection.transport.driver_type == "redis":
            self.connection.give_up()
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Celery's handler, reached only by messages it can digest."""
        handle = super().create_task_handler(*args, **kwargs)
        fatal = self.connection_errors + self.channel_errors

        def on_task_received(message: Any) -> None:
            flaw = _flaw(message)
            if flaw is not None:
                return self._drop(message, flaw)
            message.headers = plain_headers(message.headers)
            try:
                handle(message)
            except fatal:
                raise
            except Exception as error:  # noqa: BLE001 - whatever one message does, the others go on
                self._drop(message, f"raised {type(error).__name__}")

        return on_task_received

    def on_unknown_message(self, body: Any, message: Any) -> None:  # noqa: ARG002
        """Not a task at all."""
        self._drop(message, "not a task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A task of another version of us, or of somebody else; its effects come due again in the outbox."""
        self._drop(message, "unknown task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A task whose times or serialisation are not acceptable."""
        self._drop(message, type(exc).__name__)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002
        """A body that is not what its content type says."""
        self._drop(message, "undecodable body")

    def _drop(self, message: Any, reason: str) -> None:
        body = message.body or b""
        log.warning("message_dropped", task=safe_task_name(message.headers), reason=reason, bytes=len(body))
        if not message.acknowledged:
            # Not requeued: on RabbitMQ it becomes a dead letter, on Redis it is gone.
            message.reject_log_error(_celery_log, self.connection_errors)


def _wake() -> None:
    """Nothing to do but to be awake."""


def _flaw(message: Any) -> str | None:
    if len(message.body or b"") > MESSAGE_BYTES_MAX:
        return "too large"
    try:
        payload = message.payload
    except ContentDisallowed:
        return "not JSON"
    except Exception:  # noqa: BLE001 - kombu trusts each part of a message; whichever it trips over, the others go on
        return "undecodable body"
    return message_flaw(message.headers, payload, len(message.body or b""))
