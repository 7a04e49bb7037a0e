"""What a provider does with idempotency keys, as a few lines of plain Python: the reference for the fakes.

Written from the providers' documents and not from the fakes' code, so that both are wrong only if they agree by chance.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

WINDOW_HOURS = {"half_hour_no_compare": 0.5}  # all others: 24
REPLAYED_FAILURES = {
    "stripe": (402, 500),
    "half_hour_no_compare": (402, 500),
    "forgets_500": (402,),
    "successes_only": (),
    "rerun_failures": (),
}


@dataclass
class Kept:
    body: object
    at: float
    status: int | None = None  # None: in flight
    done: bool = False  # the effect happened, whatever was answered


class KeyModel:
    """One account; `begin` and `finish` are the two ends of a request, `ask` is both."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.hours = 0.0
        self.kept: dict[str, Kept] = {}
        self.money: Counter[str] = Counter()

    def begin(self, key: str, body: object) -> tuple[int, bool] | None:
        """The answer, replayed or not, or None when the request is executed now."""
        kept = self.kept.get(key)
        if kept is None or self.hours - kept.at >= WINDOW_HOURS.get(self.profile, 24):
            self.kept[key] = Kept(body, self.hours)
            return None
        if kept.body != body and self.profile != "half_hour_no_compare":
            return 400, False
        if kept.status is None:
            return 409, False
        if kept.status == 200 or kept.status in REPLAYED_FAILURES[self.profile]:
            return kept.status, True
        if self.profile == "rerun_failures" and kept.done:
            kept.status = 200
            return 200, True
        kept.status = None
        return None

    def finish(self, key: str, *, pays: bool, fault: str | None) -> tuple[int, bool]:
        """The endpoint runs; a 500 comes `before` or `after` its effect."""
        kept = self.kept[key]
        kept.done = pays and fault != "before"
        self.money[key] += kept.done
        kept.status = 500 if fault else 200 if pays else 402
        answer = kept.status, False
        if kept.status not in (200, *REPLAYED_FAILURES[self.profile]) and self.profile != "rerun_failures":
            del self.kept[key]
        return answer

    def ask(self, key: str, body: object, *, pays: bool, fault: str | None = None) -> tuple[int, bool]:
        return self.begin(key, body) or self.finish(key, pays=pays, fault=fault)
