"""What is wrong with a message, in three words and without its content; None for one that Celery can digest.

Kombu and Celery trust what they pop: bytes that are no JSON, or JSON of another shape, raise in the transport or in
the consumer, outside all task error handling, and end the worker (kombu: `loads` in the BRPOP reader, `Message`;
celery: the strategy's `'args' not in message.payload`). So shape is checked before they see it. A dropped message
costs nothing but time: its effects, if it named any, come due again in the outbox (W4).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

# 1,000 ids are 40 KB, 54 KB in base64, the envelope is below 2 KB. More is not ours and is not even parsed.
MESSAGE_BYTES_MAX = 256 * 1024

_TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}\Z")
# Every app has them: `celery.group` publishes, `celery.map` calls, `celery.chord_unlock` repeats what a message says.
_CELERYS_OWN = "celery."
# Celery prints it in lines of its own, so it must be what it is with us, with beat and with Celery: a UUID.
_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def item_flaw(item: Any) -> str | None:
    """Why an element of a Redis list is not a message of kombu's."""
    if not isinstance(item, bytes | str):
        return "not bytes"
    if len(item) > MESSAGE_BYTES_MAX:
        return "too large"
    try:
        envelope = json.loads(item)
    except (ValueError, RecursionError):
        return "not JSON"
    return _envelope_flaw(envelope)


def message_flaw(headers: Any, payload: Any, size: int) -> str | None:
    """Why a decoded message is not a task of protocol 2. Protocol 1, which nobody of us ever wrote, is refused too."""
    if size > MESSAGE_BYTES_MAX:
        return "too large"
    return _headers_flaw(headers) or _payload_flaw(payload)


def plain_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What Celery may see of the headers of a message without flaw: what it needs, and nothing it would act upon.

    It makes every header an attribute of the task's request, from `stamps` (one that is no text ends the worker) to
    `called_directly`, and prints some of them. Time limits are the worker's own: one of a millisecond would make
    prefork kill a call that is under way. Headers of a later version of us, or of a tracing library, are let go.
    """
    task_id = headers["id"]
    return {"lang": "py", "task": headers["task"], "id": task_id, "root_id": task_id, "expires": headers.get("expires")}


def safe_task_name(headers: Any) -> str:
    """A name fit for a log line: an identifier, or nothing of it."""
    name = headers.get("task") if isinstance(headers, Mapping) else None
    return name if isinstance(name, str) and _TASK_NAME.match(name) else "unknown"


def _envelope_flaw(envelope: Any) -> str | None:
    if not isinstance(envelope, dict):
        return "not an object"
    properties = envelope.get("properties")
    if not isinstance(properties, dict) or not isinstance(envelope.get("headers"), dict):
        return "no properties or headers"
    if not isinstance(properties.get("delivery_tag"), str) or not isinstance(properties.get("delivery_info"), dict):
        return "no delivery tag"
    if not all(isinstance(properties["delivery_info"].get(k), str) for k in ("exchange", "routing_key")):
        return "no delivery address"
    types = (envelope.get("content-type"), envelope.get("content-encoding", ""))  # kombu lowers both without a look
    if envelope["headers"].get("compression") or not all(isinstance(item, str) for item in types):
        return "not plain JSON"
    return _body_flaw(envelope.get("body"), properties.get("body_encoding"))


def _body_flaw(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str) or encoding != "base64":
        return "body not in base64"
    try:
        base64.b64decode(body)
    except ValueError:
        return "body not in base64"
    return None


def _headers_flaw(headers: Any) -> str | None:
    if not isinstance(headers, Mapping):
        return "no headers"
    if not isinstance(headers.get("task"), str) or not headers["task"]:
        return "no task or id"
    if headers["task"].startswith(_CELERYS_OWN):
        return "a task of Celery's own"
    if not isinstance(headers.get("id"), str) or not _TASK_ID.match(headers["id"]):
        return "no task or id"
    if not isinstance(headers.get("expires"), str | None):
        return "headers of wrong type"
    return _timing_flaw(headers)


def _timing_flaw(headers: Mapping[str, Any]) -> str | None:
    """When and how often is decided in Postgres; a message that wants a say in it is none of ours.

    A worker holds a message with an `eta` until then, and on RabbitMQ, where the prefetch is fixed, takes no other in
    its place: as many as it has places stop it for good.
    """
    if headers.get("eta") is not None:
        return "carries an eta"
    return None if headers.get("retries") in (None, 0) else "carries retries"


def _payload_flaw(payload: Any) -> str | None:
    if not isinstance(payload, list | tuple) or len(payload) != 3:
        return "body not a triple"
    args, kwargs, embed = payload
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict) or not isinstance(embed, dict | None):
        return "body not a triple"
    # A callback or chain would make the worker publish what a stranger wrote.
    return "carries callbacks" if embed and any(embed.values()) else None
