"""What goes around an effect, spoiled: batches with one bad item, plans and turns of operations, notes."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.badinput.nasty import PLANTED, card, nested, string
from tests.badinput.spoiled import GOOD, drawn

OPERATION = "/v1/operations/019a2f6e-0000-7000-8000-00000000dead"
_PLAN: dict[str, Any] = {
    "verb": "replay",
    "select": {"state": "parked", "kind": "charge"},
    "max_replays": 3,
    "force": False,
}
_START: dict[str, Any] = {"reason": "Stripe was away", "per_second": 5, "canary": 1, "failures_max": 2, "batch": 10}
_NONE: tuple[Any, ...] = (None, [], {}, "", 0, -1, True, 1e308, 2**63, "\x00", "x" * 600)


def batch(draw: random.Random, number: int) -> tuple[str, str, bytes]:
    """All or nothing: a good item beside one that is spoiled, or a list that is none. (how, path, body)."""
    kind = draw.choice(tuple(GOOD))
    good = {"kind": "email", "idempotency_key": f"bad:{number}:good", "request": GOOD["email"]}
    found = drawn(draw, json_only=True)
    bad: dict[str, Any] = {"kind": found.kind, "idempotency_key": f"bad:{number}", "request": found.request}
    shells: list[Any] = [
        {"items": [good, bad], "atomic": True},
        {"items": [good, {**good, "kind": draw.choice([*_NONE, string(draw)[:80]])}], "atomic": True},
        {"items": [good, {**good, "idempotency_key": draw.choice([None, "", 7, "k" * 256, f"é{PLANTED}", card(draw)])}], "atomic": True},
        {"items": [good, good], "atomic": True},
        {"items": [good, {**good, _stranger(draw): PLANTED}], "atomic": True},
        {"items": [good, {**good, "options": draw.choice([[], "", {_stranger(draw): PLANTED}, {"priority": "high"}, {"lane": "\x00"}])}], "atomic": True},
        {"items": [good, draw.choice(_NONE)], "atomic": True},
        {"items": draw.choice(_NONE)},
        {"items": [good], "atomic": draw.choice([None, 0, 1, "true", [], {}])},
        {"items": [good], _stranger(draw): PLANTED},
        {"items": [{}] * 1001},
        {"items": nested(40)},
        [good],
    ]  # fmt: skip
    return f"batch {kind}", "/v1/batch", _encoded(draw.choice(shells))


def operation(draw: random.Random, _: int) -> tuple[str, str, bytes]:
    """A plan, a start or a turn with one thing wrong."""
    if draw.random() < 0.3:
        verb = draw.choice(["start", "pause", "resume", "cancel", "replay", "restart"])
        started = {**_START, draw.choice([*_START, _stranger(draw)]): draw.choice([*_NONE, PLANTED])}
        return "operation", f"{OPERATION}/{verb}", _encoded(started)
    wrong: list[Any] = [
        {**_PLAN, draw.choice(["verb", "select", "max_replays", "force"]): draw.choice([*_NONE[:3], PLANTED, -1, 1.5])},
        {**_PLAN, _stranger(draw): PLANTED},
        {**_PLAN, "select": {}},
        {**_PLAN, "select": {"limit": 5}},
        {**_PLAN, "select": {draw.choice(["state", "kind", "group", "operation", "since", "older_than_seconds", "ids"]): PLANTED}},
        {**_PLAN, "select": {"ids": [draw.choice([*_NONE, string(draw)[:200]])]}},
        {**_PLAN, "select": {"key_prefix": draw.choice(["", "é", "a b", "k" * 256, 7])}},
        {**_PLAN, "select": {"error_like": draw.choice(["", "a\nb", "\x00", "x" * 201, 7])}},
        {**_PLAN, "select": {"kind": "charge", "limit": draw.choice([0, -1, 10**9, "5", 1.5, None])}},
        {**_PLAN, "select": {"kind": "charge", _stranger(draw): string(draw)}},
    ]  # fmt: skip
    return "plan", "/v1/operations", _encoded(draw.choice(wrong))


def note(draw: random.Random, _: int) -> tuple[str, str, bytes]:
    """A note on a group that is no name of one, or that says nothing."""
    group = draw.choice(["0123456789ab", PLANTED, "0", "0123456789AB", "x" * 300])
    body = draw.choice(
        [
            {},
            {"note": ""},
            {"note": 7},
            {"note": "a\x00b"},
            {"note": "x" * 100_000},
            {_stranger(draw): PLANTED},
            [],
            None,
        ]
    )
    return "note", f"/v1/groups/{group}/notes", _encoded(body)


def _stranger(draw: random.Random) -> str:
    """A member that is not known. Its name is told to the caller, who wrote it; a card number is not."""
    return draw.choice(["no_such_member", card(draw), "\x00", "a\nb", "x" * 5_000])


def _encoded(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
