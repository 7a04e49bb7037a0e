"""The fault plan: which request is to go wrong, how, and how often it did.

A rule names a route (or `*`), a piece of the key or address, the n-th matching arrival and how many times to strike.
The first rule that is due takes the request. Plans live in memory: a fake that crashed on purpose comes back behaved.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast, get_args

HttpAction = Literal[
    "close_before",  # the connection is reset before anything happened
    "close_after",  # the effect is done and durable, then the connection is reset without an answer
    "slow",  # `seconds` of latency before the effect, the key being in flight
    "hang",  # the effect is done, the answer is held back for `seconds`
    "status_401",
    "status_429",  # `code` may say lock_timeout
    "conflict_409",  # the key layer claims that the key is in use
    "status_500_stored_before",  # no effect, and a 500 kept under the key
    "status_500_stored_after",  # the effect is done, and a 500 is kept under the key
    "status_502_html",  # a proxy in front fails: nothing reached the provider
    "truncate",  # the effect is done, half of the answer is sent
    "drip",  # the effect is done, the answer comes a few bytes at a time
    "barrier",  # held `when` before or after the effect, until POST /_fake/release
    "crash",  # SIGKILL to the fake itself, `when` before or after the effect
]
SmtpAction = Literal["close", "reject"]  # with slow, hang, barrier and crash from above
Action = HttpAction | SmtpAction
ACTIONS = frozenset({*get_args(HttpAction), *get_args(SmtpAction)})
_FIELDS = frozenset(("route", "phase", "key", "recipient", "nth", "times", "action", "seconds", "when", "code", "text"))


class BadFault(ValueError):
    """The admin asked for a fault that does not exist; the message names the field."""


@dataclass(slots=True)
class Fault:
    """One rule. `hits` counts strikes, `seen` matching arrivals, `holding` requests held at its barrier now."""

    id: int
    action: Action
    route: str = "*"
    key: str | None = None
    nth: int | None = None
    times: int | None = 1  # None: for ever
    seconds: float = 1.0
    when: Literal["before", "after"] | None = None
    code: str | int | None = None
    text: str | None = None
    seen: int = 0
    hits: int = 0
    holding: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def strikes(self, route: str, address: str) -> bool:
        """Whether this arrival is one to spoil; counts it either way."""
        if self.route not in ("*", route) or (self.key is not None and not fnmatchcase(address, f"*{self.key}*")):
            return False
        self.seen += 1
        if self.seen < (self.nth or 1) or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    async def before_effect(self) -> None:
        """Be late, be held or die while the key is in flight and nothing has happened (W7)."""
        if self.action == "slow":
            await asyncio.sleep(self.seconds)
        elif self.when != "after":
            await self._hold_or_crash()

    async def after_effect(self) -> None:
        """Be late, be held or die when the effect is durable and nobody has heard of it (W8)."""
        if self.action == "hang":
            await asyncio.sleep(self.seconds)
        elif self.when == "after":
            await self._hold_or_crash()

    async def _hold_or_crash(self) -> None:
        if self.action == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "barrier":
            self.holding += 1
            try:
                await self.gate.wait()
            finally:
                self.holding -= 1

    def release(self) -> int:
        """Let go of what is held; later arrivals meet a closed gate again. Returns how many were held."""
        held = self.holding
        self.gate.set()
        self.gate = asyncio.Event()
        return held

    def as_json(self) -> dict[str, Any]:
        """The rule and its counts, for the admin port."""
        names = ("id", "action", "route", "key", "nth", "times", "seconds", "when", "code", "seen", "hits", "holding")
        return {name: getattr(self, name) for name in names}


class Plan:
    """All rules of one fake, oldest first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)

    def add(self, wish: Mapping[str, Any]) -> Fault:
        """Take a rule from the admin port. Raises BadFault."""
        if unknown := sorted(set(wish) - _FIELDS):
            raise BadFault(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
        action = wish.get("action")
        if action not in ACTIONS:
            raise BadFault(f"unknown action {action!r}; known are {', '.join(sorted(ACTIONS))}")
        when = wish.get("when")
        if when not in (None, "before", "after"):
            raise BadFault(f"when must be before or after, not {when!r}")
        fault = Fault(
            id=next(self._ids),
            action=cast("Action", action),
            route=str(wish.get("route") or wish.get("phase") or "*"),
            key=wish.get("key") or wish.get("recipient"),
            nth=wish.get("nth"),
            times=wish.get("times", 1),
            seconds=float(wish.get("seconds", 1.0)),
            # A crash is told for its worst moment unless asked otherwise: the effect done, the answer not sent (W8).
            when=when or ("after" if action == "crash" else None),
            code=wish.get("code"),
            text=wish.get("text"),
        )
        self._faults.append(fault)
        return fault

    def strike(self, route: str, address: str) -> Fault | None:
        """The rule that takes this arrival, if any."""
        return next((fault for fault in self._faults if fault.strikes(route, address)), None)

    def release(self, fault_id: int | None) -> int:
        """Open one barrier, or all; returns how many requests went on."""
        return sum(fault.release() for fault in self._faults if fault_id in (None, fault.id))

    def clear(self) -> None:
        """Forget every rule; whoever is held goes on."""
        self.release(None)
        self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """All rules with their counts."""
        return [fault.as_json() for fault in self._faults]
