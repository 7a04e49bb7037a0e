"""When a deferred effect comes due again: exponential with full jitter, so that an outage ends without a stampede."""

from __future__ import annotations

from collections.abc import Callable

BASE_SECONDS = 1.0  # the first wait is below this: most front answers (429, 409) are over within a second
CAP_SECONDS = 600.0  # ten minutes: a provider that is back after hours is noticed soon, without hammering it


def full_jitter(tries: int, random: Callable[[], float], *, cap_seconds: float = CAP_SECONDS) -> float:
    """Seconds to wait after try number `tries` (1 is the first): uniform in (0, min(cap, base·2^tries)].

    `random` returns a float in [0, 1). Full jitter as in the AWS Architecture Blog, "Exponential Backoff And Jitter".
    """
    ceiling = min(cap_seconds, BASE_SECONDS * 2.0 ** min(tries, 30))
    return max(0.05, ceiling * random())
