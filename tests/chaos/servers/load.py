"""A caller who asks for one thing after the other while servers fail around it, and knows what must become of each.

Charges with receipts, a few of them declined, refunds of a part, blind letters of both policies. What was not acknowledged
is asked for again under its key, as a caller does whose commit was never answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from service.core.errors import DependencyUnavailable
from tests.flow.oracle import Books
from tests.flow.waiting import age, until

BLIND_LANE = "blind"
PAUSE_SECONDS = 0.03
# A server that is started again answers within seconds; a caller that waits longer waits for a broken promise.
PATIENCE_SECONDS = 90.0
AGAIN_SECONDS = 0.1
_DECLINED = "pm_card_visa_chargeDeclined"
_numbers = count(1)


@dataclass(frozen=True)
class Wish:
    """One thing to ask for; `ends` are the states that may become of it."""

    kind: str
    key: str
    request: dict[str, Any]
    lane: str | None = None
    ends: tuple[str, ...] = ("succeeded",)
    upon: str | None = None
    """The key of the charge that a refund gives back."""


def wishes(name: str, number: int) -> Iterator[Wish]:
    """The same ones for the same number: of nine a refund of each kind of neighbour, two letters, a decline."""
    for i in range(number):
        key = f"{name}:{i}"
        match i % 9:
            case 3 | 7:
                yield Wish("refund", key, {"amount": 10, "currency": "eur"}, upon=f"{name}:{i - i % 9}")
            case 4:
                yield _letter(key, "at_least_once", ("succeeded",))
            case 5:
                # Whoever asks for at most once gets a person instead of a second copy.
                yield _letter(key, "at_most_once", ("succeeded", "parked"))
            case 8:
                yield _charge(key, _DECLINED, ("failed",))
            case _:
                yield _charge(key, "pm_card_visa", ("succeeded",))


def _charge(key: str, card: str, ends: tuple[str, ...]) -> Wish:
    wish = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": card}
    return Wish("charge", key, {**wish, "receipt_email": f"{key.replace(':', '-')}@example.test"}, ends=ends)


def _letter(key: str, policy: str, ends: tuple[str, ...]) -> Wish:
    address = f"{key.replace(':', '-')}@blind.example.test"
    wish = {"to": address, "subject": "Hello", "text": "A letter.", "policy": policy}
    return Wish("email", key, wish, lane=BLIND_LANE, ends=ends)


class Load:
    """`start`, `reaches(n)` while servers fail, `ends`; then `objections` says what became otherwise than it must."""

    def __init__(self, number: int, *, without: str = "") -> None:
        self._wishes = [wish for wish in wishes(f"load-{next(_numbers)}", number) if wish.kind != without]
        self.acknowledged: dict[str, str] = {}
        self.refused: list[str] = []
        """What the caller was told while a server was away."""
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def reaches(self, number: int) -> None:
        """Wait until so many were acknowledged."""
        until(lambda: self._error or len(self.acknowledged) >= number, f"{number} are accepted", PATIENCE_SECONDS)
        self._raise()

    def ends(self) -> None:
        """Wait until all were."""
        if self._thread.ident is not None:
            self.reaches(len(self._wishes))
            self._thread.join(PATIENCE_SECONDS)

    def gives_up(self) -> None:
        """The rest is not asked for: there is no server any more."""
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)

    def objections(self, books: Books) -> list[str]:
        """Acknowledged and not there, or there and not as it must be."""
        wrong = []
        for wish in self._wishes:
            if wish.key not in self.acknowledged:
                continue
            effect_id = self.acknowledged[wish.key]
            effect = books.effects.get(effect_id)
            if effect is None:
                wrong.append(f"I2 {effect_id} ({wish.key}) was acknowledged and is gone")
            elif effect["state"] not in wish.ends:
                wrong.append(f"I5 {effect_id} ({wish.key}) is {effect['state']}, and must be {wish.ends}")
        return wrong

    def _run(self) -> None:
        try:
            for wish in self._wishes:
                if self._over.is_set():
                    return
                self.acknowledged[wish.key] = self._asked_until_heard(wish)
                until(age(PAUSE_SECONDS), "the next wish is due")
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            self._error = error

    def _asked_until_heard(self, wish: Wish) -> str:
        from tasks import task_of

        request = wish.request | ({"charge": self.acknowledged[wish.upon]} if wish.upon else {})
        over = age(PATIENCE_SECONDS)
        while not self._over.is_set():
            try:
                return str(task_of(wish.kind).apply_async(kwargs=request, dedupe_key=wish.key, queue=wish.lane).id)
            except DependencyUnavailable as error:
                self.refused.append(error.message)
                if over():
                    raise
                until(age(AGAIN_SECONDS), "it is time to ask again")
        return ""

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
