"""The one place where the flow tests sleep: between two looks at a condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.01


def until(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true answer of `condition`. Fails with `what` at the deadline, which is for a broken promise only."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(POLL_SECONDS)
    return found


def age(seconds: float) -> Callable[[], bool]:
    """A condition that is true once `seconds` have passed: for promises about what does *not* happen."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
