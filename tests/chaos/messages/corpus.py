"""Messages that nobody of us wrote: a corpus by hand, and mutants of a genuine one drawn by a seed.

Each says which single log line a worker must answer it with. The secrets stand in every one of them, and in no line.
"""

from __future__ import annotations

import base64
import bz2
import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.flow.wires import body, task

SECRETS = ("canary of a stranger", "4242424242424242", "ada.canary@example.test", "sk_test_canarycanarycanary")
TRACES = ("canary", "42424242", "4242 4242")
"""No log line may hold any of these."""

Line = Literal["message_dropped", "unknown_effects", "Discarding revoked", ""]
LINES: tuple[Line, ...] = ("message_dropped", "unknown_effects", "Discarding revoked")

_SECRET = " ".join(SECRETS)
# What `pickle.dumps(os.system)` begins with; only ever written.
_PICKLED = b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
_LONG_AGO, _SOME_DAY = "2001-02-03T04:05:06", "2999-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Bad:
    """One message. `element` is what stands in a Redis list, when it is more than an envelope around the rest."""

    name: str
    line: Line = "message_dropped"
    headers: dict[str, Any] = field(default_factory=lambda: task("charge"))
    body: bytes = b""
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    lane: str = "charge"
    element: bytes | None = None

    def envelope(self) -> dict[str, Any]:
        """As kombu writes it into a list."""
        tag = str(uuid.uuid4())
        return {
            "body": base64.b64encode(self.body).decode(),
            "content-encoding": self.content_encoding,
            "content-type": self.content_type,
            "headers": self.headers,
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": self.lane},
                "delivery_mode": 2,
                "delivery_tag": tag,
                "body_encoding": "base64",
                "correlation_id": tag,
                "priority": 0,
            },
        }


def unknown(count: int = 1) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def foreign() -> Iterator[Bad]:
    """Somebody else's task, or one of Celery's own, which would call or publish what a stranger wrote."""
    for name in ("shop.tasks.charge", "nobody knows " + _SECRET, "celery.backend_cleanup"):
        yield Bad(f"task {name[:12]}", headers=task(name), body=body(_SECRET, amount=4200))
    signature = {"task": "charge", "args": [], "kwargs": {"effect_ids": unknown()}, "options": {}, "type": _SECRET}
    for name in ("celery.map", "celery.starmap", "celery.chunks", "celery.group", "celery.chain", "celery.accumulate"):
        yield Bad(name, headers=task(name), body=body(signature, [unknown()], task=signature))
    for name in ("watch", "inbox", "audit", "prune"):
        yield Bad(f"{name} with arguments", headers=task(name), body=body(**{_SECRET: 1}))


def wrong_bodies() -> Iterator[Bad]:
    """Malformed, or well-formed and not what a message of ours may say."""
    one = unknown()[0]
    said: dict[str, Any] = {
        "money by name": body(amount=4200, currency="eur", payment_method="pm_card_visa", description=_SECRET),
        "money beside an id": body(effect_id=one, amount=4200, description=_SECRET),
        "no ids": body(effect_ids=[]),
        "ids of wrong types": body(effect_ids=[1, None, True, {"id": _SECRET}, [one]]),
        "no uuid": body(effect_ids=[*unknown(5), _SECRET]),
        "sql": body(effect_ids=[f"{one}'; delete from outbox; --"]),
        "too many ids": body(effect_ids=unknown(1001)),
        "two positional": body(one, one),
        "nan": b'[[], {"effect_ids": [NaN, Infinity, -Infinity, 1e999]}, null]',
        "huge number": b'[[], {"effect_ids": [' + b"9" * 4000 + b"]}, null]",
        "deep": b"[" * 60_000,
        "deep and closed": b"[" * 60_000 + b"]" * 60_000,
        "not a triple": json.dumps({"effect_ids": [one], "note": _SECRET}).encode(),
        "callbacks": json.dumps([[], {"effect_ids": [one]}, {"callbacks": [{"task": _SECRET}]}]).encode(),
        "chain": json.dumps([[], {"effect_ids": [one]}, {"chain": [{"task": "charge"}]}]).encode(),
        "chord": json.dumps([[], {"effect_ids": [one]}, {"chord": {"task": "charge"}}]).encode(),
        "empty": b"",
        "not json": _SECRET.encode(),
        "not utf-8": b'[[], {"effect_ids": ["\xff\xfe"]}, null]',
        "surrogate": b'[[], {"effect_ids": ["\\ud800"]}, null]',
        "nul": b'[[], {"effect_ids": ["\\u0000"]}, null]',
        "pickle as json": _PICKLED,
        "half": body(effect_ids=[one])[:-9],
        "protocol 1": json.dumps({"task": "charge", "id": one, "args": [], "kwargs": {"effect_ids": [one]}}).encode(),
    }
    for name, data in said.items():
        yield Bad(name, body=data)
    good = body(effect_ids=[one])
    yield Bad("pickled", body=_PICKLED, content_type="application/x-python-serialize")
    yield Bad("yaml", body=b"!!python/object/apply:os.system ['true']", content_type="application/x-yaml")
    yield Bad("an image", body=good, content_type="image/png")
    yield Bad("packed", headers=task("charge", compression="application/x-bz2"), body=bz2.compress(good + b" " * 10**7))
    yield Bad("packed by encoding", body=bz2.compress(good), content_encoding="bz2_codec")
    yield Bad("large", body=body(effect_ids=[*unknown(), _SECRET * 10_000]))


def wrong_headers() -> Iterator[Bad]:
    """Headers that Celery acts upon, with ids nobody has."""
    wrong: dict[str, dict[str, Any]] = {
        "eta": {"eta": _SOME_DAY}, "eta of the past": {"eta": _LONG_AGO}, "eta of nowhere": {"eta": _SECRET},
        "retries": {"retries": 3}, "retries of wrong type": {"retries": _SECRET},
        "a name for an id": {"id": _SECRET}, "a card for an id": {"id": "4242424242424242"}, "no id": {"id": None},
        "a list for a task": {"task": ["charge"]}, "no task": {"task": ""}, "expiry of nowhere": {"expires": _SECRET},
        "expiry of wrong type": {"expires": 7},
    }  # fmt: skip
    for name, headers in wrong.items():
        yield Bad(name, headers={**task("charge"), **headers}, body=body(effect_ids=unknown()))
    yield Bad("no headers", headers={}, body=body(effect_ids=unknown()))
    yield Bad("expired", "Discarding revoked", task("charge", expires=_LONG_AGO), body(effect_ids=unknown()))


def tolerated() -> Iterator[Bad]:
    """Written by a later version, or by somebody who knows Celery: understood, and nothing of it acted upon."""
    more: dict[str, dict[str, Any]] = {
        "a later version": {"counterfoil-version": 99, "counterfoil-something": {"new": _SECRET}, "traceparent": "00-0"},
        "time limits": {"timelimit": [0.001, 0.001]}, "time limits of wrong type": {"timelimit": {_SECRET: 1}},
        "shadow": {"shadow": _SECRET}, "stamps": {"stamped_headers": [{}], "stamps": 7},
        "stamps that are none": {"stamped_headers": 7}, "group": {"group": _SECRET, "group_index": _SECRET},
        "called directly": {"called_directly": True, "is_eager": True}, "other arguments": {"args": _SECRET, "kwargs": 7},
        "a result": {"ignore_result": False, "reply_to": _SECRET}, "parents": {"root_id": 7, "parent_id": [_SECRET]},
        "descriptions": {"argsrepr": _SECRET * 1000, "kwargsrepr": _SECRET, "origin": {"o": _SECRET}, "lang": "c"},
        "places": {"hostname": _SECRET, "delivery_info": _SECRET, "properties": _SECRET, "logfile": "/etc/passwd"},
    }  # fmt: skip
    for name, headers in more.items():
        yield Bad(name, "unknown_effects", {**task("charge"), **headers}, body(effect_ids=unknown()))
    yield Bad("a thousand ids", "unknown_effects", body=body(effect_ids=unknown(1000)))
    yield Bad("one id", "unknown_effects", body=body(effect_id=unknown()[0].upper()))
    yield Bad("a strange encoding", "unknown_effects", body=body(effect_ids=unknown()), content_encoding="no-such")


def elements() -> Iterator[Bad]:
    """What may stand in a Redis list and is no message of kombu's."""
    whole = Bad("", body=body(effect_ids=unknown())).envelope()
    raw: list[Any] = [
        b"",
        b"\xff\x00\xfe",
        _SECRET.encode(),
        b"[]",
        b"null",
        b"7",
        b"{}",
        b"[" * 60_000,
        b'{"a":' * 9_000,
    ]
    raw += [json.dumps({**whole, name: _SECRET}).encode() for name in ("body", "headers", "properties")]
    raw += [
        json.dumps({k: v for k, v in whole.items() if k != name}).encode() for name in ("body", "headers", "properties")
    ]
    for name in ("delivery_tag", "delivery_info", "body_encoding"):
        raw.append(json.dumps({**whole, "properties": {**whole["properties"], name: None}}).encode())
    raw.append(json.dumps(whole).encode()[:-20])
    for number, element in enumerate(raw):
        yield Bad(f"element {number}", element=element)


def by_hand(broker: str) -> list[Bad]:
    """All of them."""
    parts: list[Callable[[], Iterator[Bad]]] = [foreign, wrong_bodies, wrong_headers, tolerated]
    return [bad for part in (*parts, *([elements] if broker == "valkey" else [])) for bad in part()]


# --- mutants -----------------------------------------------------------------------------------------------------

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**63, 1e308, "", *SECRETS, [], {}, [[]], {"": None}, "charge", "\u0000", "é" * 300, [None] * 50,
)  # fmt: skip


def drawn(draw: random.Random, number: int, broker: str) -> list[Bad]:
    """Mutants of a message that names effects nobody has: whatever they have become, one line each."""
    return [_mutant(draw, broker, n) for n in range(number)]


def _mutant(draw: random.Random, broker: str, number: int) -> Bad:
    genuine = Bad(f"mutant {number}", body=body(effect_ids=unknown(draw.randint(1, 3))))
    if draw.random() < 0.2:
        return replace(genuine, body=_bytes(draw, genuine.body))
    if draw.random() < 0.4:
        return replace(genuine, body=json.dumps(_node(draw, json.loads(genuine.body))).encode())
    if broker == "valkey" and draw.random() < 0.6:
        whole = genuine.envelope()
        element = (
            _bytes(draw, json.dumps(whole).encode()) if draw.random() < 0.3 else json.dumps(_node(draw, whole)).encode()
        )
        return replace(genuine, element=element)
    return replace(genuine, headers={**genuine.headers, draw.choice([*genuine.headers]): _plain(draw)})


def _plain(draw: random.Random) -> Any:
    """A value that AMQP can carry in a header."""
    value = draw.choice(_ODD)
    return "odd" if value in ({"": None}, 2**63) else value


def _bytes(draw: random.Random, data: bytes) -> bytes:
    place = draw.randrange(len(data))
    return draw.choice(
        [data[:place], data[:place] + draw.randbytes(3) + data[place:], data[:place] + data[place + 1 :], data * 2]
    )


def _node(draw: random.Random, value: Any) -> Any:
    """The same with one node of the tree replaced, taken out or doubled."""
    keys = [*value] if isinstance(value, dict) else [*range(len(value))] if isinstance(value, list) else []
    if not keys or draw.random() < 0.15:
        return draw.choice(_ODD)
    key = draw.choice(keys)
    copy = value.copy()
    if draw.random() < 0.2:
        del copy[key]
    else:
        copy[key] = _node(draw, value[key])
    return copy
