"""Both brokers behind one face: how much waits in a lane, lose it, repeat it, put in something nobody of us wrote."""

from __future__ import annotations

import base64
import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kombu import Connection

from tests.flow.brokers import Valkey

LANES = ("charge", "email")


class Wire(Protocol):
    """What a test may do to a broker."""

    name: str
    url: str

    def waiting(self, lane: str) -> int:
        """Messages that no worker has taken."""

    def idle(self) -> bool:
        """Whether no message waits or is out with a worker."""

    def empty(self) -> None:
        """Lose everything."""

    def put(self, lane: str, headers: dict[str, Any], body: bytes, content_type: str = "application/json") -> None:
        """A message with this head and body, well-formed as far as the transport goes."""


class ValkeyWire:
    """Lists, and a hash of what is unacknowledged."""

    name = "valkey"

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self.url = server.url

    def waiting(self, lane: str) -> int:
        with self.server.client() as client:
            return int(client.llen(lane))

    def idle(self) -> bool:
        with self.server.client() as client:
            return not any(client.llen(lane) for lane in LANES) and not client.hlen("unacked")

    def empty(self) -> None:
        with self.server.client() as client:
            client.flushall()

    def copies(self, lane: str) -> list[bytes]:
        """The raw elements of a lane, as kombu wrote them."""
        with self.server.client() as client:
            return list(client.lrange(lane, 0, -1))

    def push(self, lane: str, *elements: bytes) -> None:
        """Raw elements, as they are."""
        with self.server.client() as client:
            client.lpush(lane, *elements)

    def put(self, lane: str, headers: dict[str, Any], body: bytes, content_type: str = "application/json") -> None:
        tag = str(uuid.uuid4())
        properties = {
            "delivery_info": {"exchange": "", "routing_key": lane},
            "delivery_mode": 2,
            "delivery_tag": tag,
            "body_encoding": "base64",
            "correlation_id": tag,
            "priority": 0,
        }
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": headers,
            "properties": properties,
        }
        self.push(lane, json.dumps(envelope).encode())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server keeps its connections and answers nobody."""
        process = self.server._process
        assert process
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process.pid, signal.SIGCONT)


class RabbitWire:
    """Quorum queues on a server of the run."""

    name = "rabbitmq"

    def __init__(self, url: str) -> None:
        self.url = url

    def waiting(self, lane: str) -> int:
        return self._declared(lane)[0]

    def idle(self) -> bool:
        # What is unacknowledged cannot be asked for over AMQP; no test depends on it here.
        return not any(self.waiting(lane) for lane in LANES)

    def empty(self) -> None:
        with Connection(self.url) as connection:
            for lane in LANES:
                channel = connection.channel()
                try:
                    channel.queue_delete(lane)
                finally:
                    channel.close()

    def put(self, lane: str, headers: dict[str, Any], body: bytes, content_type: str = "application/json") -> None:
        with Connection(self.url, transport_options={"confirm_publish": True}) as connection:
            connection.Producer().publish(
                body, routing_key=lane, headers=headers, content_type=content_type, content_encoding="utf-8"
            )

    def _declared(self, lane: str) -> tuple[int, int]:
        with Connection(self.url) as connection:
            channel = connection.channel()
            try:
                found = channel.queue_declare(lane, passive=True)
            except connection.channel_errors:
                return 0, 0
            return int(found.message_count), int(found.consumer_count)


def task(name: str, **more: Any) -> dict[str, Any]:
    """The head of a Celery message, protocol 2."""
    task_id = str(uuid.uuid4())
    head = {"lang": "py", "task": name, "id": task_id, "root_id": task_id, "retries": 0, "timelimit": [None, None]}
    return {**head, "argsrepr": "()", "kwargsrepr": "{}", "origin": "1@stranger.example", **more}


def body(*args: Any, **kwargs: Any) -> bytes:
    """The body of one."""
    return json.dumps(
        [list(args), kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    ).encode()
