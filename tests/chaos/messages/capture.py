"""Writes down the messages of a released version, byte for byte, as its relay puts them on each broker.

    python -m pytest -m slow tests/chaos/test_message_versions.py -k capture      with COUNTERFOIL_TEST_CAPTURE=0.1.0

A file is one message: `{"broker", "lane", "task", "effect_ids", …}` and either the element of the list (Valkey) or
properties, headers and body (RabbitMQ). Done once for each release; nobody edits the files afterwards.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from kombu import Connection, Queue
from kombu.transport import pyamqp

from tests.flow.wires import ValkeyWire, Wire

GOLDEN = Path(__file__).resolve().parents[2] / "flow" / "golden" / "messages"


def capture(wire: Wire, lane: str) -> dict[str, Any] | None:
    """The oldest message of a lane, taken out; None when there is none."""
    if isinstance(wire, ValkeyWire):
        with wire.server.client() as client:
            element = client.rpop(lane)
        return None if element is None else {"broker": wire.name, "lane": lane, "element": json.loads(element)}
    with Connection(wire.url) as connection:
        message = Queue(lane, channel=connection.default_channel).get(no_ack=True)
        if message is None:
            return None
        assert isinstance(message, pyamqp.Message)
        properties = {k: v for k, v in message.properties.items() if k != "application_headers"}
        return {
            "broker": wire.name,
            "lane": lane,
            "properties": properties,
            # What a queue adds on the way (x-delivery-count) is none of ours.
            "headers": {k: v for k, v in message.headers.items() if not k.startswith("x-")},
            "body": base64.b64encode(_bytes(message.body)).decode(),
        }


def write(version: str, kind: str, found: dict[str, Any]) -> Path:
    """Keep it under its version."""
    place = GOLDEN / version / f"{found['broker']}-{kind}-{found['lane']}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(_without_host(found), indent=1, sort_keys=True) + "\n")
    return place


def replay(wire: Wire, found: dict[str, Any], effect_ids: list[str]) -> None:
    """Put a kept message back, with the ids of effects that exist in place of its own."""
    if isinstance(wire, ValkeyWire):
        element = {**found["element"], "body": _renamed(found["element"]["body"], effect_ids)}
        wire.push(found["lane"], json.dumps(element).encode())
        return
    body = base64.b64decode(_renamed(found["body"], effect_ids))
    with Connection(wire.url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish(body, routing_key=found["lane"], headers=found["headers"], **found["properties"])


def named(found: dict[str, Any]) -> list[str]:
    """The effects that a kept message names."""
    _, kwargs, _ = json.loads(base64.b64decode(found["element"]["body"] if "element" in found else found["body"]))
    return list(kwargs["effect_ids"])


def _renamed(packed: str, effect_ids: list[str]) -> str:
    args, kwargs, embed = json.loads(base64.b64decode(packed))
    assert not args
    assert set(kwargs) == {"effect_ids"}
    return base64.b64encode(json.dumps([args, {"effect_ids": effect_ids}, embed]).encode()).decode()


def _without_host(found: dict[str, Any]) -> dict[str, Any]:
    headers = found["element"]["headers"] if "element" in found else found["headers"]
    headers["origin"] = "1@relay.example"
    return found


def _bytes(body: str | bytes) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)
