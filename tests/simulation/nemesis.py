"""What goes wrong in one seed: drawn once, so that a seed is its faults, and fired where something is under way.

Each seed switches a few kinds of fault on and leaves the others off (swarm testing), with a budget: when it is spent
the world is healed and has to come to rest. Every shot is counted, so that a kind that never fires is noticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from random import Random

Hits = defaultdict[str, int]
HOUR, DAY = 3600.0, 86400.0
F1, F2, F3, F4, F5 = "F1 closed before", "F2 429", "F3 409", "F4 stored 500, not done", "F5 stored 500, done"
F6, F7, F8, F9, F10 = "F6 502", "F7 closed after", "F8 hangs", "F9 truncated", "F10 drips"
REFUSED, UNREACHABLE, LATE = "400 in front", "unreachable", "lands late"
ROLLED = "stored 500 rolled forward or back"
CRASH, PAUSE, BLACKOUT = "worker dies", "worker pauses", "everything stops"
RELAY_DIES, MAIL_LOST, DOUBLED, DELAYED = "relay dies", "message lost", "message doubled", "message delayed"
BROKER_AWAY, OUTAGE, COMMIT_LOST = "broker away", "database away", "commit's answer lost"
REPLAYED, RESOLVED, LOOKED, REPEATED = "person replays", "person resolves", "person verifies", "caller repeats"
HOOK_LATE, HOOK_DOUBLED, RESTORED = "webhook late", "webhook doubled", "database goes back"
LOOK_UP_LAGS, CONTRADICTS, RECOVERY_DIES = "look-up lags", "caller contradicts himself", "recovery dies"

WIRE = (F1, F2, F3, F4, F5, F6, F7, F8, F9, F10, REFUSED, UNREACHABLE, LATE)
OTHERS = (
    CRASH, PAUSE, BLACKOUT, RELAY_DIES, MAIL_LOST, DOUBLED, DELAYED, BROKER_AWAY, OUTAGE, COMMIT_LOST,
    REPEATED, CONTRADICTS, HOOK_LATE, HOOK_DOUBLED, LOOK_UP_LAGS, RESTORED,
)  # fmt: skip
DEEP = (CRASH, PAUSE, BLACKOUT, OUTAGE, LATE, REFUSED, F2, F4, F7)
"""Kinds that matter together, so a seed often has two of them."""
KINDS = (*WIRE, *OTHERS, RECOVERY_DIES)
CALM = 0.08  # seeds without a fault: the happy path stays in view

# How long a pause, an outage or a stop may last: below and beyond a lease, a horizon and a provider's memory.
SPANS = (2.0, 30.0, 85.0, 100.0, 600.0, 1.5 * HOUR, 5 * HOUR, 19.5 * HOUR, 21 * HOUR, 25 * HOUR, 26 * HOUR)


class Nemesis:
    """The faults of one seed."""

    def __init__(self, random: Random, hits: Hits) -> None:
        self.hits = hits
        self.random = random.random
        self.uniform = random.uniform
        self.shots: list[str] = []
        self.without: frozenset[int] = frozenset()
        self.tell: Callable[[str], object] = lambda _: None
        self.left = 0 if random.random() < CALM else random.randint(1, 6)
        self.chance: dict[str, float] = {}
        if self.left:
            density = random.choice((0.06, 0.2, 0.5))
            kinds = random.sample(WIRE, random.randint(0, 2)) + random.sample(OTHERS, random.randint(0, 2))
            kinds += random.sample(DEEP, random.randint(0, 2))
            self.chance = dict.fromkeys(kinds or KINDS, density)
            if RESTORED in self.chance:
                self.chance[RECOVERY_DIES] = density / 2
        # Few lengths in one seed, so that what needs two long gaps in a row meets them.
        self.spans = random.sample(SPANS, random.randint(1, 2)) if random.random() < 0.7 else SPANS
        self.wire = [kind for kind in WIRE if kind in self.chance]
        # Persons are no fault; they are about in some seeds.
        self.persons = bool(self.left) and random.random() < 0.4
        self.strikes = tuple(kind for kind in (BLACKOUT, CRASH, PAUSE) if kind in self.chance)

    def fires(self, kind: str) -> bool:
        """Whether this kind of fault happens here and now."""
        return kind in self.chance and self.random() < self.chance[kind] and self.fired(kind)

    def fired(self, kind: str) -> bool:
        """One fault less to come; after the last one the world is healed. False when this one is left out."""
        self.left -= 1
        if not self.left:
            self.heal()
        self.shots.append(kind)
        if len(self.shots) in self.without:
            return False
        self.hits[kind] += 1
        self.tell(kind)
        return True

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.left, self.chance, self.wire, self.strikes = 0, {}, [], ()

    def fate(self) -> str:
        """What becomes of one call to a provider; empty when it goes well."""
        if not self.wire:
            return ""
        kind = self.wire[int(self.random() * len(self.wire))]
        return kind if self.fires(kind) else ""

    def span(self) -> float:
        """How long something lasts."""
        return self.spans[int(self.random() * len(self.spans))] * (0.95 + 0.1 * self.random())

    def told(self) -> dict[str, object]:
        """The options, for a person who repeats the seed."""
        return {
            "faults": self.left,
            "kinds": dict(self.chance),
            "persons": self.persons,
            "spans": [round(span) for span in self.spans],
        }
