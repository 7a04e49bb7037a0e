"""kombu's Redis transport, made to outlive what anybody may push into its lists.

kombu reads an element with BRPOP, decodes it and builds a Message, all outside error handling: one element that is no
JSON, or JSON of another shape, ends the worker process. Here such an element is dropped with one log line, and
consuming goes on. The look happens in redis-py's own hook for the reply to a command, before kombu sees it.
Nor does a broken connection take a place of the prefetch window with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from service.broker.envelope import item_flaw
from service.core.errors import NO_CLUSTER, SettingsError

log = structlog.get_logger(__name__)


class QoS(kombu_redis.QoS):
    """The prefetch window, whose places come back whether or not Redis hears of it.

    kombu 5.7.0 frees a place after it has removed the message from Redis. When the removal fails, Celery logs "Couldn't
    ack" and goes on, and the place is taken for good: after as many as the window has, the worker takes nothing any
    more, alive and connected (the symptom of celery/celery#10205 and #10302). The message is handed out again after
    the visibility timeout, to find its effects settled; raising instead would reconnect and bring it no sooner.
    """

    def ack(self, delivery_tag: str) -> None:
        """Raises what Redis raised; the place is free."""
        with self._place_back(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """As `ack`."""
        with self._place_back(delivery_tag):
            super().reject(delivery_tag, requeue=requeue)

    @contextmanager
    def _place_back(self, delivery_tag: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Only now: a tag marked twice could be marked after it was swept, and count for a place that is not taken.
            super(kombu_redis.QoS, self).ack(delivery_tag)  # past the removal, to the place
            raise


class _Careful:
    """What both channels, plain and behind a Sentinel, add to kombu's."""

    QoS: Any = QoS

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)  # type: ignore[misc]
        client.set_response_callback("BRPOP", _message_or_none)
        return client

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # A task that outlived its connection is acknowledged through a channel whose connection is gone. kombu meets
        # None there and raises AttributeError, which ends the worker; a connection error is what Celery is ready for.
        transport = getattr(self, "connection", None)
        if transport is None or transport.client is None:
            raise RedisConnectionError("the connection of this channel was closed")
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        return params


def _message_or_none(response: Any, **_: Any) -> tuple[bytes, bytes] | None:
    """BRPOP's reply if it is a message, None (as when nothing came in time) if it is not."""
    if not response:
        return None
    queue, item = response
    flaw = item_flaw(item)
    if flaw is None:
        return queue, item
    log.warning("message_dropped", queue=_text(queue), reason=flaw, bytes=len(item))
    return None


def _text(queue: bytes | str) -> str:
    return queue.decode("utf-8", "replace") if isinstance(queue, bytes) else queue


class Channel(_Careful, kombu_redis.Channel):
    """A channel to one Redis or Valkey."""


class SentinelChannel(_Careful, kombu_redis.SentinelChannel):
    """A channel to the master that Sentinels name."""


class Transport(kombu_redis.Transport):
    """`redis://` and `rediss://`."""

    Channel = Channel


class SentinelTransport(kombu_redis.SentinelTransport):
    """`sentinel://`."""

    Channel = SentinelChannel


def refuse_cluster(client: Any) -> None:
    """Raises SettingsError if the server is a node of a cluster: most keys would be somewhere else."""
    try:
        node = client.info("cluster")
    except ResponseError:
        return  # an access list may forbid INFO; a cluster then shows itself at the first key that moved
    if node.get("cluster_enabled"):
        raise SettingsError(NO_CLUSTER, field="COUNTERFOIL_BROKER_URL")
