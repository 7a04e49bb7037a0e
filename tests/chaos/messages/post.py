"""Puts messages into either broker as a stranger would: below Celery, one connection for many."""

from __future__ import annotations

import json
from collections.abc import Iterable

from kombu import Connection

from tests.chaos.messages.corpus import Bad
from tests.flow.wires import ValkeyWire, Wire


def send(wire: Wire, messages: Iterable[Bad]) -> None:
    """All of them, in order; RabbitMQ has confirmed each."""
    if isinstance(wire, ValkeyWire):
        for bad in messages:
            element = bad.element if bad.element is not None else json.dumps(bad.envelope()).encode()
            wire.push(bad.lane, element)
        return
    with Connection(wire.url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer()
        for bad in messages:
            producer.publish(
                bad.body,
                routing_key=bad.lane,
                headers=dict(bad.headers),
                content_type=bad.content_type,
                content_encoding=bad.content_encoding,
            )
