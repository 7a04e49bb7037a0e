"""Requests with exactly one thing wrong, drawn by a seed: each of them must be refused, whichever door it comes through."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.badinput.nasty import PLANTED, STRINGS, card, nested, string, values

CHARGE_ID = "019a2f6e-0000-7000-8000-000000000017"
GOOD: dict[str, dict[str, Any]] = {
    "charge": {
        "amount": 4200,
        "currency": "eur",
        "payment_method": "pm_card_visa",
        "customer": "cus_1",
        "receipt_email": "ada@example.test",
        "description": "Order 17",
        "metadata": {"order": "17"},
    },
    "email": {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada", "html": "<p>Hello</p>"},
    "refund": {"charge": CHARGE_ID, "amount": 100, "currency": "eur", "reason": "duplicate", "metadata": {"a": "b"}},
    "capture": {"charge": CHARGE_ID, "amount": 100, "currency": "eur"},
    "cancel": {"charge": CHARGE_ID, "reason": "abandoned"},
}
REQUIRED = {
    "charge": ("amount", "currency", "payment_method"),
    "email": ("to", "subject", "text"),
    "refund": ("charge", "amount", "currency"),
    "capture": ("charge", "amount", "currency"),
    "cancel": ("charge",),
}
KINDS = tuple(GOOD)
_TEXTS = {"charge": ("description",), "email": ("text", "html", "subject"), "refund": (), "capture": (), "cancel": ()}
_LETTERS = [text for text in STRINGS if "\n" in text or "\r" in text or "\x00" in text]


@dataclass(frozen=True)
class Spoiled:
    """One call with one thing wrong; `how` names it. `key` is the dedupe key, `options` are `apply_async`'s others."""

    kind: str
    how: str
    request: Any
    key: Any = "bad:1"
    options: dict[str, Any] = field(default_factory=dict)


def drawn(draw: random.Random, *, json_only: bool = False) -> Spoiled:
    """One spoiled call; `json_only`: of what JSON can say."""
    kind = draw.choice(KINDS)
    ways = _IN_REQUEST if json_only else (*_IN_REQUEST, *_BESIDE)
    return draw.choice(ways)(draw, kind, json_only)


def _request(kind: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD[kind], **changes}


def _missing(draw: random.Random, kind: str, _: bool) -> Spoiled:
    gone = draw.choice(REQUIRED[kind])
    return Spoiled(kind, f"no {gone}", {k: v for k, v in GOOD[kind].items() if k != gone})


def _unknown(draw: random.Random, kind: str, _: bool) -> Spoiled:
    name = draw.choice(
        ["card", "cvc", "amount ", "Amount", "__proto__", "constructor", "idempotency_key", string(draw)[:60]]
    )
    return Spoiled(kind, "unknown field", _request(kind, **{name: PLANTED}))


def _type(draw: random.Random, kind: str, json_only: bool) -> Spoiled:
    name = draw.choice(list(GOOD[kind]))
    wrong = draw.choice([[], [PLANTED], {"a": [PLANTED]}, 1.5, nested(40)]) if json_only else values(draw)
    if name == "metadata" and isinstance(wrong, dict) and all(isinstance(text, str) for text in wrong.values()):
        wrong = [PLANTED]  # an object of texts is what metadata are
    return Spoiled(kind, f"type of {name}", _request(kind, **{name: wrong}))


def _null(draw: random.Random, kind: str, _: bool) -> Spoiled:
    name = draw.choice(REQUIRED[kind])
    return Spoiled(kind, f"null {name}", _request(kind, **{name: draw.choice([None, True, False])}))


def _amount(draw: random.Random, kind: str, _: bool) -> Spoiled:
    if "amount" not in GOOD[kind]:
        return _missing(draw, kind, _)
    wrong = draw.choice(
        [0, -1, -4200, 100_000_000, 2**31 * 100, 2**63, -(2**63), 10**400, "4200", "42.00", True, 42.0, 0.1, None]
    )
    return Spoiled(kind, "amount", _request(kind, amount=wrong))


def _currency(draw: random.Random, kind: str, _: bool) -> Spoiled:
    if "currency" not in GOOD[kind]:
        return _missing(draw, kind, _)
    return Spoiled(kind, "currency", _request(kind, currency=draw.choice(["EUR", "xxx", "xts", "€", 978, *STRINGS])))


def _token(draw: random.Random, kind: str, _: bool) -> Spoiled:
    name = {"charge": draw.choice(["payment_method", "customer"]), "email": "to"}.get(kind, "charge")
    return Spoiled(
        kind,
        f"token {name}",
        _request(kind, **{name: string(draw) + draw.choice([" ", "\n", "/", "?", PLANTED + "!"])}),
    )


def _card(draw: random.Random, kind: str, _: bool) -> Spoiled:
    number = card(draw)
    places: list[Callable[[], dict[str, Any]]] = [
        lambda: _request(kind, **dict.fromkeys(_TEXTS[kind], f"{PLANTED} {number}") or {number: "x"}),
        lambda: _request(kind, metadata={"note": number}),
        lambda: _request(kind, metadata={number: "note"}),
        lambda: _request(kind, **{number: "x"}),
        lambda: _request(kind, nested={"a": [{"b": number}]}),
        lambda: _request(kind, note=int("".join(filter(str.isdigit, number)))),
    ]
    return Spoiled(kind, "card number", draw.choice(places)())


def _address(draw: random.Random, kind: str, _: bool) -> Spoiled:
    name = {"charge": "receipt_email", "email": draw.choice(["to", "sender"])}.get(kind)
    if name is None:
        return _missing(draw, kind, _)
    wrong = draw.choice(
        [
            "ada",
            "@",
            "a@b\r\nBcc: x@y.test",
            "a@b.test, c@d.test",
            f"{PLANTED}@",
            "a" * 65 + "@b.test",
            "a@" + "b" * 260,
            *_LETTERS,
        ]
    )
    return Spoiled(kind, "address", _request(kind, **{name: wrong}))


def _text(draw: random.Random, kind: str, _: bool) -> Spoiled:
    if not _TEXTS[kind]:
        return _token(draw, kind, _)
    name = draw.choice(_TEXTS[kind])
    wrong = draw.choice(["", "a\x00" + PLANTED, "\ud800" + PLANTED, _too_long(draw, name)])
    return Spoiled(kind, f"text {name}", _request(kind, **{name: wrong}))


def _too_long(draw: random.Random, name: str) -> str:
    """The longest are rare: one takes as long as a hundred others."""
    if name in ("text", "html"):
        return "x" * 300_000 if draw.random() < 0.05 else ""
    return "x" * 1_001


def _subject(draw: random.Random, _kind: str, _: bool) -> Spoiled:
    wrong = draw.choice(
        ["Hi\r\nBcc: eve@example.test", "Hi\n" + PLANTED, "\x1b[2J", "x" * 201, "a\u2028b", "\u202e" + PLANTED]
    )
    return Spoiled("email", "subject", _request("email", subject=wrong))


def _metadata(draw: random.Random, _kind: str, _: bool) -> Spoiled:
    wrong: Any = draw.choice(
        [{"a": 1}, {"a": None}, {"": "x"}, {"k" * 41: "x"}, {"k": PLANTED * 40}, {str(i): "x" for i in range(41)}, {"effect_id": PLANTED},
         [["a", PLANTED]], PLANTED, {"a": {"b": PLANTED}}, {"a\x00": "x"}, {"a": "\ud800"}]
    )  # fmt: skip
    return Spoiled("charge", "metadata", _request("charge", metadata=wrong))


def _choice(draw: random.Random, _kind: str, _: bool) -> Spoiled:
    kind, name = draw.choice(
        [("refund", "reason"), ("cancel", "reason"), ("charge", "capture_method"), ("email", "policy")]
    )
    return Spoiled(
        kind, f"choice {name}", _request(kind, **{name: draw.choice(["", "DUPLICATE", PLANTED, 7, *STRINGS])})
    )


def _whole(draw: random.Random, kind: str, json_only: bool) -> Spoiled:
    wrong = draw.choice(
        [[], [GOOD[kind]], PLANTED, 7, True, {}, {"a": nested(90)}]
        if json_only
        else [[], PLANTED, 7, {}, {1: 2}, nested(500), {"a": nested(5_000)}]
    )
    return Spoiled(kind, "the whole request", wrong)


def _key(draw: random.Random, kind: str, _: bool) -> Spoiled:
    wrong = draw.choice(
        [
            None,
            "",
            " ",
            "a b",
            "a\n",
            "é",
            "k" * 256,
            7,
            b"key",
            ["key"],
            "a\x00b",
            PLANTED + " x",
            card(draw),
            draw.choice(STRINGS) + " ",
        ]
    )
    return Spoiled(kind, "dedupe key", GOOD[kind], key=wrong)


def _option(draw: random.Random, kind: str, _: bool) -> Spoiled:
    name, wrong = draw.choice(
        [("eta", "2030-01-01"), ("eta", datetime(2030, 1, 1)), ("eta", 7), ("countdown", -1), ("countdown", float("nan")),  # noqa: DTZ001
         ("countdown", float("inf")), ("countdown", "5"), ("countdown", True), ("countdown", 10**9), ("priority", 10), ("priority", -1),
         ("priority", "9"), ("priority", True), ("priority", 1.0), ("queue", "nowhere"), ("queue", ""), ("queue", PLANTED + "\n"), ("queue", 7),
         ("tenant", ""), ("tenant", "a b"), ("tenant", "x" * 64), ("tenant", 7), ("tenant", PLANTED + "/.."), ("tenant", "\x00"),
         ("link", "x"), ("chain", [1]), ("retry", True), ("expires", 5), ("serializer", "pickle"), ("headers", {"a": PLANTED}),
         ("routing_key", PLANTED), ("time_limit", 1), ("made_up", 1), ("session", PLANTED), ("session", 7), ("args", (PLANTED,))]
    )  # fmt: skip
    return Spoiled(kind, f"option {name}", GOOD[kind], options={name: wrong})


_Way = Callable[[random.Random, str, bool], Spoiled]
_IN_REQUEST: tuple[_Way, ...] = (
    _missing, _unknown, _type, _null, _amount, _currency, _token, _card, _address, _text, _subject, _metadata, _choice, _whole,
)  # fmt: skip
_BESIDE: tuple[_Way, ...] = (_key, _option)
