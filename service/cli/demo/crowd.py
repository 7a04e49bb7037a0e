"""The callers: they ask over HTTP, at least once each, with the same key on every try."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.cli.demo.score import Asked

GOOD_CARD = "pm_card_visa"
DECLINING_CARD = "pm_card_visa_chargeDeclined"
DECLINES_EVERY = 33  # "a few declines"
REPEATS_EVERY = 10  # a tenth is sent twice with the same key, as an impatient caller does
CALLERS = 6


def orders(count: int, choose: random.Random) -> list[Asked]:
    """What will be asked for; the same for the same seed."""
    return [
        Asked(f"{i:05d}", choose.randrange(100, 20_000), declines=i % DECLINES_EVERY == DECLINES_EVERY - 1)
        for i in range(count)
    ]


class Crowd:
    """Sends each order in its own time over `seconds`; a caller whose request fails asks again with the same key."""

    def __init__(self, port: int, asked: Sequence[Asked], seconds: float, choose: random.Random) -> None:
        self.sent = 0
        self._port = port
        self._asked = asked
        self._choose = choose
        self._pace = seconds / max(1, len(asked))
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(CALLERS)
        self._futures = [self._threads.submit(self._order, i, one) for i, one in enumerate(self._turns())]
        self._start = time.monotonic()

    def progress(self) -> int:
        """Requests answered so far."""
        return sum(future.done() for future in self._futures)

    def finish(self, until: float) -> None:
        """Wait for all of them. Raises what a caller met that is neither an answer nor an outage."""
        for future in self._futures:
            future.result(timeout=max(0.1, until - time.monotonic()))
        self._threads.shutdown()

    def _turns(self) -> list[Asked]:
        again = [one for i, one in enumerate(self._asked) if i % REPEATS_EVERY == 0]
        turns = [*self._asked, *again]
        self._choose.shuffle(turns)
        return turns

    def _order(self, turn: int, one: Asked) -> None:
        time.sleep(max(0.0, self._start_time() + turn * self._pace - time.monotonic()))
        while not self._ask(one):
            time.sleep(0.2)

    def _start_time(self) -> float:
        return getattr(self, "_start", time.monotonic())

    def _ask(self, one: Asked) -> bool:
        with self._lock:
            self.sent += 1
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": f"order:{one.order}:charge"}
            link.request("POST", "/v1/charges", json.dumps(_body(one)), headers)
            answer = link.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            return False  # no answer: the caller cannot know, and asks again with the same key
        finally:
            link.close()
        if answer.status >= 500:
            return False
        if answer.status not in (200, 202):
            raise RuntimeError(f"the API answered {answer.status}: {text[:200]!r}")
        return True


def _body(one: Asked) -> dict[str, object]:
    return {
        "amount": one.amount,
        "currency": "eur",
        "customer": "cus_demo",
        "payment_method": DECLINING_CARD if one.declines else GOOD_CARD,
        "receipt_email": one.address,
        "description": f"Order {one.order}",
        "metadata": {"order": one.order},
    }
