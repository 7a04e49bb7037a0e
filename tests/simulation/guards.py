"""The guards, each of which can be taken out: then some seed must break the promise named here, or it guards nothing.

Those of our SQL are switched off in `database.py` by name; those of the product's own code are replaced in its modules
for the time of a run, which is what the real thing would do without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any

from service.core.effect import HorizonPassed
from service.core.outcome import Absent
from service.engine import resolve
from service.engine.hold import Hold
from service.providers.mail import resend, smtp
from service.providers.stripe import attempt as stripe_attempt
from service.providers.stripe.attempt import HORIZON_SECONDS, StripeAttempt
from tests.simulation.database import Broken
from tests.simulation.nemesis import Hits
from tests.simulation.restore import Store, at
from tests.simulation.world import World, virtual

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """`about`: the promise's own words. `breaks`: how the broken promise begins. `patches`: what stands in the product's modules instead. `begin`: where
    to look for those who have no time to search from the first seed on.
    """

    name: str
    about: str
    breaks: tuple[str, ...]
    patches: Callable[[], list[Patch]] = list
    begin: int = 0


def _random_key() -> list[Patch]:
    numbers = count()

    def key(effect_id: str, step: str) -> str:
        return f"{effect_id}:{step}:{next(numbers)}"

    return [(stripe_attempt, "step_key", key), (resend, "step_key", key)]


def _no_horizon() -> list[Patch]:
    return [(stripe_attempt, "HORIZON_SECONDS", inf), (resend, "HORIZON_SECONDS", inf)]


def _no_lease_check() -> list[Patch]:
    def guard(self: Hold, *, horizon_seconds: float | None = None) -> None:
        age = self._attempt.sent_age_seconds
        if horizon_seconds is not None and self._attempt.in_doubt and age >= horizon_seconds:
            raise HorizonPassed

    return [(Hold, "guard", guard), (Hold, "seconds_left", lambda self: self._deadline)]


def _no_look_up() -> list[Patch]:
    def blind(self: Any, before: Any = None) -> Any:
        return Absent("absent", self.harmless) if self.age >= HORIZON_SECONDS else self.missed(before)

    from service.providers.stripe import refunds

    return [(refunds._Refund, "_find", blind)]


def _no_recovery_point() -> list[Patch]:
    def note(self: StripeAttempt, **facts: Any) -> None:
        self._notes |= facts

    return [(StripeAttempt, "note", note)]


def _no_marker() -> list[Patch]:
    honest = Hold.record
    return [(Hold, "record", lambda self, facts: None if "phase" in facts else honest(self, facts))]


def _generous() -> list[Patch]:
    return [(smtp, "before_sending", lambda *_: None)]


def _quiet_hour() -> list[Patch]:
    return [(resolve, "_too_soon", lambda *_: None)]


def _proof_of_absence() -> list[Patch]:
    return [(resolve, "_provably_not_done", lambda _: True)]


def _no_repairs() -> list[Patch]:
    return [(resolve, "REPAIR_SECONDS", resolve.QUIET_SECONDS)]


def _asks_too_late() -> list[Patch]:
    def known_until(self: Store, _: object) -> Any:
        return at(self.world.hub.now)

    return [(Store, "known_until", known_until)]


GUARDS = (
    Guard("unique_key", "one row per tenant, kind and dedupe key", ("I1",)),
    Guard("row_until_settled", "the outbox row lives until the effect is settled", ("I7", "I10")),
    Guard("order_gate", "nothing is claimed before the effect that it acts upon", ("order",)),
    Guard("fence", "each write carries the attempt's number", ("I9",)),
    Guard("final_guard", "a settlement only finds what is unsettled", ("I8", "I5")),
    Guard("sent_first", "first_sent_at is committed with the claim", ("I1",)),
    Guard("doubt_on_lost_lease", "a lost lease leaves the effect in doubt", ("I8", "I1", "I5")),
    Guard("front_restores", "a front answer restores the state before the claim", ("I1", "I5"), begin=1774),
    Guard("own_answers_only", "in doubt, a refusal in front of the key settles nothing", ("I5",), begin=5911),
    Guard("doubt_survives_replay", "a person's replay leaves the effect in doubt", ("I1", "I5"), begin=4928),
    Guard("follow_up_in_commit", "a receipt is accepted in the commit that settles its charge", ("a receipt",)),
    Guard("stable_key", "a step has one key for ever", ("I1", "I6"), _random_key),
    Guard("horizon", "in doubt and past the horizon nothing is sent", ("I1",), _no_horizon),
    Guard("lease_check", "the hold refuses when the lease could end before the answer", ("I1", "I5"), _no_lease_check, begin=1457),
    Guard("look_up", "past the horizon the provider is asked before anything is absent", ("I1", "0", "1", "2"), _no_look_up),
    Guard("recovery_point", "the intent's id is committed before the confirm (W11)", ("I1", "I5", "I10"), _no_recovery_point),
    Guard("marker_before_dot", "the marker is committed before the final dot", ("I1", "I5", "0", "1", "2"), _no_marker),
    Guard("fingerprint", "the same key with another request is refused", ("I4",)),
    Guard("quiet_hour", "nobody declares failed what may still land", ("I1", "I5"), _quiet_hour, begin=2356),
    Guard("proof_before_release", "a person may send again only what is proven absent", ("I1", "I5"), _proof_of_absence, begin=1497),
    Guard("repair_day", "nobody declares failed within a day of a 500", ("I5",), _no_repairs, begin=2356),
    Guard("gate", "a database that went back in time claims nothing", ("I1", "I3", "I5")),
    Guard("doubt", "the recovery marks what may have been sent", ("I1", "I3", "I5")),
    Guard("orphans", "a repeated key finds what a lost life has sent", ("I1",)),
    Guard("known_until", "the recovery asks from the last claim that is known", ("I1", "I3"), _asks_too_late),
    Guard("blind_policy", "at most once means that an unanswered dot is the last", ("I1",), _generous),
)  # fmt: skip
BY_NAME = {guard.name: guard for guard in GUARDS}


@contextmanager
def standing_in(guard: Guard | None) -> Iterator[None]:
    """Virtual time and wires in the product's modules, and `guard` taken out; all put back afterwards."""
    patches = virtual() + (guard.patches() if guard else [])
    before = [(thing, name, getattr(thing, name)) for thing, name, _ in patches]
    try:
        for thing, name, value in patches:
            setattr(thing, name, value)
        yield
    finally:
        for thing, name, value in reversed(before):
            setattr(thing, name, value)


def play(
    seed: int,
    *,
    off: str = "",
    tracing: bool = False,
    hits: Hits | None = None,
    without: frozenset[int] = frozenset(),
) -> tuple[World, str | None]:
    """One seed; with it the promise it breaks, counted in `hits`. Call it `standing_in`."""
    world = World(seed, off=off, tracing=tracing, hits=hits, without=without)
    try:
        world.run()
    except Broken as broken:
        return world, str(broken)
    except Exception as error:  # noqa: BLE001 - a bug in the product is a find like any other
        return world, f"{type(error).__name__}: {error}"
    return world, None


def found(guard: str, seeds: int, begin: int | None = None) -> str | None:
    """Take the guard out and play up to `seeds` worlds, from where it is known to be missed on: how a promise breaks."""
    one = BY_NAME[guard]
    first = one.begin if begin is None else begin
    with standing_in(one):
        for seed in range(first, first + seeds):
            world, wrong = play(seed, off=guard)
            world.close()
            if wrong:
                return f"seed {seed}: {wrong}"
    return None
