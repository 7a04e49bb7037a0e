"""A caller of any release, on the path it was started with: `python -m tests.chaos.releases KEY COUNT [lane]`.

Accepts COUNT charges with a receipt and as many letters, each in a transaction of its own, in the words that every
release knows, and prints one id a line. COUNT 0 goes on until it is told to stop, and prints how long each took.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from itertools import count
from typing import Any

PAUSE_SECONDS = 0.02


def _ask(key: str, n: int, options: dict[str, Any]) -> list[str]:
    from tasks import charge, email

    wish = {
        "amount": 4200,
        "currency": "eur",
        "payment_method": "pm_card_visa",
        "receipt_email": f"{key}{n}@example.test",
    }
    letter = {"to": f"{key}{n}@example.test", "subject": "Hello", "text": "A letter."}
    paid = charge.apply_async(kwargs=wish, dedupe_key=f"{key}:{n}:charge", **options)
    sent = email.apply_async(kwargs=letter, dedupe_key=f"{key}:{n}:letter", **options)
    return [paid.id, sent.id]


def main() -> None:
    key, number, *lane = sys.argv[1:]
    options = {"queue": lane[0]} if lane else {}
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for n in count():
        if stop.is_set() or (int(number) and n >= int(number)):
            return
        since = time.monotonic()
        for effect_id in _ask(key, n, options):
            print(f"accepted {effect_id} {time.monotonic() - since:.3f}", flush=True)
        if not int(number):
            stop.wait(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
