"""An acknowledgement that is lost costs a message that comes again, never a place in the worker's prefetch window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Consumer
from redis.exceptions import ConnectionError as RedisConnectionError

from service.broker.app import create_app
from service.broker.messages import Message
from service.broker.publish import Publisher
from tests.chaos.wire.proxy import Fault, Link, Point, Way, proxied
from tests.flow import brokers

PLACES = 2
EFFECT = "00000000-0000-7000-8000-000000000001"
# What removes a message from the unacknowledged ones is a transaction; its requeue watches the hash first.
REMOVALS = {"ack": "MULTI", "reject": "MULTI", "requeue": "WATCH"}


class Window:
    """A consumer with so many places, on a wire that a test breaks."""

    def __init__(self, app: Any, link: Link) -> None:
        self._link = link
        self._connection = app.connection_for_read()
        channel = self._connection.channel()
        self._taken: list[Any] = []
        queue = app.amqp.queues["charge"](channel)
        self._consumer = Consumer(channel, [queue], on_message=self._taken.append, prefetch_count=PLACES)
        self._consumer.consume()
        self._consumer.qos(prefetch_count=PLACES)

    def take(self) -> Any:
        """The next message. Raises TimeoutError if none is taken, though one waits."""
        self._connection.drain_events(timeout=5)
        return self._taken.pop()

    def settled_in_vain(self, message: Any, how: str) -> None:
        """The connection breaks under the acknowledgement."""
        watch = self._link.arm(Point(Way.UP, 0, Fault.LOST, label=REMOVALS[how]))
        with pytest.raises(RedisConnectionError):
            getattr(message, how)()
        assert watch.fired

    def close(self) -> None:
        self._connection.collect(socket_timeout=1)


@contextmanager
def _window(settings_from: Callable[..., Any], server: brokers.Valkey) -> Iterator[Window]:
    parts = urlsplit(server.url)
    assert parts.port
    link = Link("worker-broker", "broker", ("127.0.0.1", parts.port))
    with proxied([link]):
        app = create_app(settings_from(broker_url=server.url.replace(f":{parts.port}", f":{link.port}")))
        window = Window(app, link)
        try:
            yield window
        finally:
            window.close()


@pytest.mark.parametrize("how", REMOVALS)
def test_a_worker_takes_on_after_more_lost_acknowledgements_than_it_has_places(
    valkey_server: brokers.Valkey, settings_from: Callable[..., Any], how: str
) -> None:
    with valkey_server.client() as client:
        client.flushall()
    with Publisher(create_app(settings_from(broker_url=valkey_server.url))) as publisher:
        publisher.publish([Message("charge", "charge", (EFFECT,))] * (PLACES + 1))
    with _window(settings_from, valkey_server) as window:
        for _ in range(PLACES + 1):
            window.settled_in_vain(window.take(), how)
