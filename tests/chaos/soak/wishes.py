"""A client's program: an endless list of wishes with known ends, the same for the same seed, however often it is read.

What money will have moved when all is over is known before anything has begun, from this file and nothing else. So the
books of the provider can be compared with a sum that no process of ours has computed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Verb = Literal["charge", "hold", "capture", "cancel", "refund", "letter", "repeat", "change", "roll back"]
Door = Literal["http", "python"]
GOOD, DECLINED, SLOW = "pm_card_visa", "pm_card_visa_chargeDeclined", "pm_success_de"
"""SLOW is a bank debit: Stripe says `processing`, and days later (here: seconds) that it was paid."""
CARDS = {GOOD: 86, DECLINED: 8, SLOW: 6}
_WEIGHTS: dict[Verb, int] = {
    "charge": 44, "letter": 10, "refund": 14, "hold": 8, "repeat": 10, "change": 7, "roll back": 7,
}  # fmt: skip
# A refund asks for a charge that may not have been sent yet, but not for one of long ago: its seller knows what it sold.
REACH = 40


@dataclass(frozen=True)
class Wish:
    """One thing to ask for. `ends` and `moves` (minor units, negative when given back) are what must become of it."""

    number: int
    verb: Verb
    kind: str
    door: Door
    key: str
    body: dict[str, Any]
    ends: str = ""
    moves: int = 0
    upon: int | None = None
    """The wish whose effect this one concerns, repeats or contradicts."""


@dataclass
class Program:
    """`name` is the client's; wishes are numbered from 0."""

    seed: int
    name: str
    _paid: list[Wish] = field(default_factory=list)
    _given: list[Wish] = field(default_factory=list)
    _held: Wish | None = None

    def wishes(self) -> Iterator[Wish]:
        """One after the other; after a hold always what becomes of it."""
        number = 0
        while True:
            yield self._wish(number, random.Random(f"{self.seed} {self.name} {number}"))
            number += 1

    def _wish(self, number: int, choose: random.Random) -> Wish:
        if self._held is not None:
            held, self._held = self._held, None
            return self._release(number, held, choose)
        verb = choose.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if verb == "refund" and (paid := self._refundable(number)) is not None:
            return self._refund(number, paid, choose)
        if verb in ("repeat", "change") and self._given:
            return self._again(number, verb, choose)
        if verb == "letter":
            body = {"to": f"{self.name}-{number}@example.test", "subject": "Hello", "text": "A letter."}
            return self._keep(self._made(number, verb, "email", body, choose, ends="succeeded"))
        return self._money(number, verb if verb in ("hold", "roll back") else "charge", choose)

    def _money(self, number: int, verb: Verb, choose: random.Random) -> Wish:
        amount = choose.randint(100, 9_999)
        card = choose.choices(list(CARDS), list(CARDS.values()))[0] if verb == "charge" else GOOD
        body: dict[str, Any] = {"amount": amount, "currency": "eur", "customer": "cus_1", "payment_method": card}
        if verb == "charge" and choose.random() < 0.3:
            body["receipt_email"] = f"{self.name}-{number}@example.test"
        if verb == "hold":
            body["capture_method"] = "manual"
            self._held = self._made(number, verb, "charge", body, choose, ends="")
            return self._held
        if verb == "roll back":
            return self._made(number, verb, "charge", body, choose, door="python")
        good = card != DECLINED
        made = self._made(
            number, verb, "charge", body, choose, ends="succeeded" if good else "failed", moves=amount * good
        )
        self._paid += [made] * good
        return self._keep(made)

    def _release(self, number: int, held: Wish, choose: random.Random) -> Wish:
        if choose.random() < 0.3:
            return self._made(number, "cancel", "cancel", {}, choose, ends="succeeded", upon=held.number)
        part = choose.randint(50, held.body["amount"])
        body = {"amount": part, "currency": "eur"}
        return self._made(number, "capture", "capture", body, choose, ends="succeeded", moves=part, upon=held.number)

    def _refundable(self, number: int) -> Wish | None:
        self._paid = [wish for wish in self._paid if wish.number >= number - REACH]
        return self._paid.pop(0) if self._paid else None

    def _refund(self, number: int, paid: Wish, choose: random.Random) -> Wish:
        part = choose.randint(1, paid.body["amount"])
        body = {"amount": part, "currency": "eur"}
        made = self._made(number, "refund", "refund", body, choose, ends="succeeded", moves=-part, upon=paid.number)
        return self._keep(made)

    def _again(self, number: int, verb: Verb, choose: random.Random) -> Wish:
        """A key that was used before: with the same request, or with another one, which must be refused."""
        first = choose.choice(self._given[-REACH:])
        body = dict(first.body)
        if verb == "change":
            body |= {"subject": "Another"} if first.kind == "email" else {"amount": _another(first)}
        door: Door = choose.choice(("http", "python"))
        return Wish(number, verb, first.kind, door, first.key, body, upon=first.number)

    def _keep(self, wish: Wish) -> Wish:
        self._given = [*self._given[-REACH:], wish]
        return wish

    def _made(
        self,
        number: int,
        verb: Verb,
        kind: str,
        body: dict[str, Any],
        choose: random.Random,
        *,
        ends: str = "",
        moves: int = 0,
        upon: int | None = None,
        door: Door | None = None,
    ) -> Wish:
        chosen: Door = door or choose.choice(("http", "python"))
        return Wish(number, verb, kind, chosen, f"{self.name}:{number}:{kind}", body, ends, moves, upon)


def _another(first: Wish) -> int:
    """An amount that would be fine under a new key: a refund never asks for more than was taken."""
    amount = int(first.body["amount"])
    return amount - 1 if first.kind == "refund" and amount > 1 else amount + 1
