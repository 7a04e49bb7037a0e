"""Pace: no more calls a second than a provider's account allows, over all workers, whoever is killed or added.

Stripe allows 100 calls a second in live mode and 25 in test mode, per account (Stripe: Rate limits). Tokens are taken
right before a claim: what gets none is not claimed, spends no attempt and no delivery, and comes due again. The relay
publishes a second's worth ahead and no more, so what waits, waits in Postgres in order of priority. Nothing here is
needed for any promise: without its tables effects flow, and the provider's own 429 is the limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import random
from time import monotonic, sleep
from typing import Protocol
from urllib.parse import urlsplit

import structlog

from service.core.effect import Attempt
from service.core.outcome import Outcome
from service.engine.circuit import Breaker, Quietly
from service.settings import Settings
from service.store import buckets, outbox, paced
from service.store.buckets import Bucket, Grant
from service.store.database import statement

COSTS = {"charge": 2, "refund": 1, "capture": 1, "cancel": 1}
"""Calls of an effect that meets no trouble: a charge is created and confirmed."""
STRIPE_LIVE_PER_SECOND, STRIPE_TEST_PER_SECOND = 100.0, 25.0  # Stripe: Rate limits
RESEND_PER_SECOND = 5.0  # Resend: Usage limits; per team, more on request
# A tenth of the pace may come at once and nine tenths flow, so that no second has more than the pace.
BURST_SHARE = 0.1
PATIENCE_SECONDS = 2.0  # for tokens, with a message in hand: the relay publishes a second's worth ahead
PUT_OFF_SECONDS = 1.0  # no relay publishes it sooner than it can be claimed; this one only bounds an older relay
LOOK_SECONDS = 0.25  # how old a relay's knowledge may be that nothing is limited
ROUND_SECONDS = 0.02  # between two rounds of a relay that found nothing to take while something is limited
SILENT_SECONDS = 1.0  # between two looks for attempts that a provider's absence has cut off

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

log = structlog.get_logger(__name__)


def bucket_of(provider: str, settings: Settings) -> Bucket | None:
    """The pace of a provider's account; None when it has none (a fake on loopback, SMTP, a rate of 0)."""
    if provider == "stripe":
        key = settings.stripe_api_key.get_secret_value() if settings.stripe_api_key else ""
        live = key.startswith(("sk_live_", "rk_live_"))
        usual = STRIPE_LIVE_PER_SECOND if live else STRIPE_TEST_PER_SECOND
        away = bool(key) and not _near(settings.stripe_api_base)
        return _bucket(f"stripe {'live' if live else 'test'}", COSTS, settings.stripe_rate, usual if away else 0.0)
    if provider in ("resend", "smtp"):
        url = settings.email_url.get_secret_value() if settings.email_url else None
        usual = RESEND_PER_SECOND if provider == "resend" and url and not _near(url) else 0.0
        return _bucket(provider, {"email": 1}, settings.email_rate, usual)
    return None


def _near(url: str | None) -> bool:
    return url is not None and urlsplit(url).hostname in _LOOPBACK


def _bucket(account: str, costs: dict[str, int], chosen: float | None, usual: float) -> Bucket | None:
    rate = usual if chosen is None else chosen
    if not rate:
        return None
    # Never less than the dearest effect, or that one would wait for ever.
    return Bucket(account, costs, rate * (1 - BURST_SHARE), max(rate * BURST_SHARE, float(max(costs.values()))))


class Room(Protocol):
    """The places of a worker process, `at_once` for one message."""

    @property
    def at_once(self) -> int:
        """The most that one message may take together."""

    def enter(self, count: int) -> None:
        """Wait until there is room for `count`."""

    def leave(self, count: int) -> None:
        """Make room for `count` others."""


@dataclass(frozen=True, slots=True)
class Begin:
    """What may begin now. `last`: the rest of the message may not; else it may ask again after `wait_seconds`."""

    ids: Sequence[str]
    wait_seconds: float = 0.0
    last: bool = False
    why: str = ""


class Gate:
    """A worker's: which of a message's effects may be claimed, and when. One per process; safe to call from threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._breaker = Breaker(settings)
        self._quietly = Quietly()
        self._buckets: dict[str, Bucket | None] = {}

    def admitted(self, provider: str, kind: str, ids: Sequence[str], room: Room) -> Iterator[Sequence[str]]:
        """The ids that may be claimed, in batches as they may, their places taken; the others come due again, later.

        Nobody holds a place while he waits for tokens, nor tokens while he waits for a place.
        """
        waiting, until = list(ids), monotonic() + PATIENCE_SECONDS
        while waiting:
            some = waiting[: room.at_once]
            room.enter(len(some))
            begin = Begin(())
            try:
                begin = self._begin(provider, kind, some)
            finally:
                room.leave(len(some) - len(begin.ids))
            waiting = waiting[len(begin.ids) :]
            if begin.ids:
                yield begin.ids
            if begin.last or (not begin.ids and monotonic() + begin.wait_seconds > until):
                self._put_off(waiting, max(begin.wait_seconds, PUT_OFF_SECONDS), begin.why)
                return
            if not begin.ids:
                # Jitter, so that those who wait ask one after another.
                sleep(begin.wait_seconds * (1 + random()))  # noqa: S311 - no secret

    def _begin(self, provider: str, kind: str, ids: Sequence[str]) -> Begin:
        way = self._breaker.way(provider, kind)
        if way.open:
            grant = self._grant(provider, kind, len(ids))
            return Begin(ids[: grant.effects], grant.wait_seconds, why=f"the pace of {provider}")
        if not way.probe:
            return Begin((), last=True, why=way.why)
        self._breaker.probes(ids[0])
        return Begin(ids[:1], last=True, why=way.why)

    def unclaimed(self, provider: str, kind: str, ids: Sequence[str]) -> None:
        """These were admitted and are settled, or somebody else's: their tokens are for others."""
        for effect_id in ids:
            self._breaker.idle(provider, effect_id)
        if ids and (bucket := self._buckets.get(provider)) and kind in bucket.costs:
            self._quietly(partial(_give_back, bucket, kind, len(ids)), None)

    def learned(self, provider: str, attempt: Attempt, outcome: Outcome) -> None:
        """What an attempt says about its provider, once it is settled."""
        self._breaker.learned(provider, attempt.kind, attempt.id, outcome)

    def _grant(self, provider: str, kind: str, effects: int) -> Grant:
        everything = Grant(effects, 0.0)
        if provider not in self._buckets:
            self._buckets[provider] = bucket = bucket_of(provider, self._settings)
            self._quietly(partial(_write_down, bucket, kind), None)
        bucket = self._buckets[provider]
        if bucket is None or kind not in bucket.costs:
            return everything
        return self._quietly(partial(_take, bucket, kind, effects), everything)

    def _put_off(self, ids: Sequence[str], seconds: float, why: str) -> None:
        def work() -> None:
            with statement() as connection:
                put_off = paced.put_off(connection, ids, seconds=seconds, why=why)
            log.debug("put_off", count=len(put_off), reason=why)

        if ids:
            self._quietly(work, None)  # else they come due as if their message had been lost (W4)


def _write_down(bucket: Bucket | None, kind: str) -> None:
    """So that relays, which know no provider, find it."""
    with statement() as connection:
        if bucket is None:
            buckets.drop(connection, [kind])
        else:
            buckets.put(connection, bucket)


def _take(bucket: Bucket, kind: str, effects: int) -> Grant:
    with statement() as connection:
        grant = buckets.take(connection, bucket, kind, effects)
        if grant is None:
            buckets.put(connection, bucket)
            grant = buckets.take(connection, bucket, kind, effects)
    return grant or Grant(effects, 0.0)


def _give_back(bucket: Bucket, kind: str, effects: int) -> None:
    with statement() as connection:
        buckets.give_back(connection, bucket, kind, effects)


class Meter:
    """A relay's: what may be published now. Reads what workers have written down, and needs no provider's settings."""

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._quietly = Quietly()
        self._limited = False
        self._looked_at = self._idle_at = self._silent_at = float("-inf")

    def take(self, batch: int, redelivery: float) -> list[outbox.Due]:
        """As `outbox.take`, as far as the limits let it; without their tables as far as the window does."""
        if monotonic() > self._looked_at + LOOK_SECONDS:
            self._limited = self._quietly(_limited, otherwise=False)
            self._looked_at = monotonic()
        if not self._limited:
            return _all(batch, redelivery)
        if monotonic() < self._idle_at + ROUND_SECONDS:
            return []
        due = self._quietly(partial(_some, batch, redelivery), None)
        if due is None:
            return _all(batch, redelivery)
        if monotonic() > self._silent_at + SILENT_SECONDS:
            self._quietly(self._mark_silent, None)
            self._silent_at = monotonic()
        if not due:
            self._idle_at = monotonic()
        return due

    def _mark_silent(self) -> None:
        """An attempt that went silent stands as `unknown`, also while nobody takes its effect up again."""
        with statement() as connection:
            silent = paced.silent(connection)
            lost = outbox.lease_out(connection, silent, actor=self._actor) if silent else []
        if lost:
            log.warning("leases_lost", count=len(lost))


def _limited() -> bool:
    with statement() as connection:
        return paced.limited(connection)


def _all(batch: int, redelivery: float) -> list[outbox.Due]:
    with statement() as connection:
        return outbox.take(connection, batch, redelivery)


def _some(batch: int, redelivery: float) -> list[outbox.Due] | None:
    with statement() as connection:
        return paced.take(connection, batch, redelivery)
