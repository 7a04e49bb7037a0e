"""The fault plan: which request is to go wrong, how, and how often it did.

A rule names a route (or `*`), a piece of the key or address, an effect id in the body, the n-th matching arrival and
how many times to strike; what it did is counted. The first rule that is due takes the request. Plans live in memory:
a fake that crashed on purpose comes back behaved.

The ten faults of the chaos matrix, as rules; each can be narrowed by route, key, effect, nth and times:

    F1  closed before anything was read    close_before (RST) · close when=before (FIN) · refuse (no connection)
    F2  429                                status_429 · with code=lock_timeout
    F3  409 while another one runs         conflict_409 · barrier, and the same key meanwhile
    F4  stored 500 without effect          status_500_stored_before · with then=roll_forward the effect comes later
    F5  stored 500 with effect             status_500_stored_after · then=roll_forward | roll_back | silence
    F6  502 that nobody stored             status_502_html
    F7  effect, then the connection dies   close_after, reset (RST) · close (FIN) · crash when=after
    F8  effect, then no answer             hang, for `seconds` or with seconds=null until released
    F9  effect, then half an answer        truncate (by length) · truncate_chunked · empty_200 · html_200
    F10 effect, then a dripping answer     drip

`then` is what the provider's staff do about a stored 500, `seconds` later by the fake's clock; the stored answer never
changes (Stripe docs, "Advanced error handling"). roll_forward: the effect stands, and its events come late. roll_back:
it is cancelled or refunded, with events. silence: it stands, and no event ever says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast, get_args
from urllib.parse import unquote_plus

HttpAction = Literal[
    "close_before",  # the connection is reset before anything happened
    "close_after",  # the effect is done and durable, then the connection is reset without an answer
    "reset",  # the same two, by `when`: RST
    "close",  # and politely: FIN, without an answer
    "refuse",  # the port is shut for `seconds` or until released: at once, or by the request that meets the rule
    "slow",  # `seconds` of latency before the effect, the key being in flight
    "hang",  # the effect is done, the answer is held back for `seconds` or until released
    "status_401",
    "status_429",  # `code` may say lock_timeout
    "conflict_409",  # the key layer claims that the key is in use
    "status_500_stored_before",  # no effect, and a 500 kept under the key
    "status_500_stored_after",  # the effect is done, and a 500 is kept under the key
    "status_502_html",  # a proxy in front fails: nothing reached the provider
    "empty_200",  # the effect is done and its answer kept; what arrives is a 200 without a body
    "html_200",  # the same with a page of a proxy
    "truncate",  # the effect is done, half of the answer is sent
    "truncate_chunked",  # the same without a length: the last chunk never comes
    "drip",  # the effect is done, the answer comes a few bytes at a time
    "barrier",  # held `when` before or after the effect, until POST /_fake/release
    "crash",  # SIGKILL to the fake itself, `when` before or after the effect
]
SmtpAction = Literal["reject"]  # with close, reset, slow, hang, barrier and crash from above
Action = HttpAction | SmtpAction
Then = Literal["roll_forward", "roll_back", "silence"]
ACTIONS = frozenset({*get_args(HttpAction), *get_args(SmtpAction)})
_REPAIRED = {
    "status_500_stored_before": ("roll_forward",),
    "status_500_stored_after": get_args(Then),
}
# Told for their worst moment unless asked otherwise: the effect done, the answer not sent (W8).
_AFTER_BY_DEFAULT = ("crash", "reset", "close")
_FIELDS = frozenset(
    (
        "route",
        "phase",
        "key",
        "recipient",
        "effect",
        "nth",
        "times",
        "action",
        "seconds",
        "when",
        "code",
        "text",
        "then",
    )
)


class BadFault(ValueError):
    """The admin asked for a fault that does not exist; the message names the field."""


@dataclass(slots=True)
class Fault:
    """One rule. `hits` counts strikes, `seen` matching arrivals, `holding` requests held by it now."""

    id: int
    action: Action
    route: str = "*"
    key: str | None = None
    effect: str | None = None
    nth: int | None = None
    times: int | None = 1  # None: for ever
    seconds: float | None = 1.0  # None: until released
    when: Literal["before", "after"] | None = None
    code: str | int | None = None
    text: str | None = None
    then: Then | None = None
    seen: int = 0
    hits: int = 0
    holding: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def shuts_at_once(self) -> bool:
        """A refusal that waits for no particular request: its route, if any, is the name of a door."""
        return self.action == "refuse" and self.key is None and self.effect is None and self.nth is None

    def strikes(self, route: str, address: str, body: bytes) -> bool:
        """Whether this arrival is one to spoil; counts it either way."""
        if self.shuts_at_once or self.route not in ("*", route):
            return False
        if self.key is not None and not fnmatchcase(address, f"*{self.key}*"):
            return False
        if self.effect is not None and not fnmatchcase(
            unquote_plus(body.decode("utf-8", "replace")), f"*{self.effect}*"
        ):
            return False
        self.seen += 1
        if self.seen < (self.nth or 1) or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True

    async def before_effect(self) -> None:
        """Be late, be held or die while the key is in flight and nothing has happened (W7)."""
        if self.action == "slow":
            await self.hold()
        elif self.when != "after":
            await self._stop_or_crash()

    async def after_effect(self) -> None:
        """Be late, be held or die when the effect is durable and nobody has heard of it (W8)."""
        if self.action == "hang":
            await self.hold()
        elif self.when == "after":
            await self._stop_or_crash()

    async def _stop_or_crash(self) -> None:
        if self.action == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "barrier":
            await self._held()

    async def hold(self) -> None:
        """Wait for `seconds`, or less when released."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self._held()

    async def _held(self) -> None:
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
        names = ("id", "action", "route", "key", "effect", "nth", "times", "seconds", "when", "code", "then")
        return {name: getattr(self, name) for name in (*names, "seen", "hits", "holding")}


class Plan:
    """All rules of one fake, oldest first."""

    def __init__(self, *, repairs: bool = False) -> None:
        self._faults: list[Fault] = []
        self._ids = itertools.count(1)
        self._repairs = repairs

    def add(self, wish: Mapping[str, Any]) -> Fault:
        """Take a rule from the admin port. Raises BadFault."""
        action, when, then = wish.get("action"), wish.get("when"), wish.get("then")
        self._check(wish)
        seconds = wish.get("seconds", 1.0)
        fault = Fault(
            id=next(self._ids),
            action=cast("Action", action),
            route=str(wish.get("route") or wish.get("phase") or "*"),
            key=wish.get("key") or wish.get("recipient"),
            effect=wish.get("effect"),
            nth=wish.get("nth"),
            times=wish.get("times", 1),
            seconds=None if seconds is None else float(seconds),
            when=when or ("after" if action in _AFTER_BY_DEFAULT else None),
            code=wish.get("code"),
            text=wish.get("text"),
            then=then,
        )
        fault.hits = int(fault.shuts_at_once)
        self._faults.append(fault)
        return fault

    def _check(self, wish: Mapping[str, Any]) -> None:
        if unknown := sorted(set(wish) - _FIELDS):
            raise BadFault(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
        action, when, then = wish.get("action"), wish.get("when"), wish.get("then")
        if action not in ACTIONS:
            raise BadFault(f"unknown action {action!r}; known are {', '.join(sorted(ACTIONS))}")
        if when not in (None, "before", "after"):
            raise BadFault(f"when must be before or after, not {when!r}")
        if then is not None and not (self._repairs and then in _REPAIRED.get(str(action), ())):
            raise BadFault(f"then cannot be {then!r} for {action} here")

    def strike(self, route: str, address: str, body: bytes = b"") -> Fault | None:
        """The rule that takes this arrival, if any."""
        return next((fault for fault in self._faults if fault.strikes(route, address, body)), None)

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
