"""What is promised of each kind of effect, and what breaks when one guard is taken out.

A guard that can be removed without anything turning red is not a guard, or the model is blind to it: each row of
`GUARDS` names the promise that must break, and where. `ASSUMPTIONS` are the same for what the world must keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.model import decisions as d
from tests.model.checker import Fairness
from tests.model.surroundings import Bounds
from tests.model.world import ILLEGAL, LATE, ZOMBIE, World

KINDS = (d.CHARGE, d.REFUND, d.AGAIN, d.RESEND, d.ONCE, d.TWICE)

DONE = "done no more often than promised"
BOOKED = "booked at most once"
SUCCEEDED = "succeeded means done"
FAILED = "failed means not done, now and later"
LEGAL = "only moves of the table, and none from a final state"
OWNED = "a former owner writes no state"
HORIZON = "no key is sent again after the forgetting"
ABSENT = "parked as absent stays absent"
DUTY = "an outbox row for each unsettled effect and no other"
FLAGGED = "a possible duplicate is flagged"
ENDS = "each effect is settled or waits for a person"


def properties(kind: d.Kind) -> dict[str, Callable[[World], bool]]:
    """Every safety promise of a kind, as a predicate over one state."""
    most = kind.copies_max
    promises: dict[str, Callable[[World], bool]] = {
        DONE: lambda w: w.provider.money <= most,
        BOOKED: lambda w: w.marks.ledger <= 1,
        SUCCEEDED: lambda w: w.row.state != "succeeded" or w.provider.money > 0,
        # A predicate over all reachable states holds later as well: whatever lands then is a state, too.
        FAILED: lambda w: w.row.state != "failed" or w.provider.money == 0,
        LEGAL: lambda w: not w.marks.broken & ILLEGAL,
        OWNED: lambda w: not w.marks.broken & ZOMBIE,
        HORIZON: lambda w: not w.marks.broken & LATE,
        ABSENT: lambda w: not w.marks.absent or w.provider.money == 0,
        DUTY: lambda w: (w.row.road == "gone") == (w.row.state == "none" or w.row.state in d.FINAL),
    }
    if most > 1:
        promises[FLAGGED] = lambda w: w.row.state != "succeeded" or w.provider.money < 2 or w.marks.flagged == 1
    return promises


def at_rest(w: World) -> bool:
    """Settled, or waiting for a person: where every effect must end."""
    return w.row.state in d.FINAL or w.row.state == "parked"


def _kind_of_action(action: str) -> str | None:
    """Faults, persons and webhooks may happen; nothing relies on them. Choices of one action are one class."""
    return None if action[0] in "!?~" else action.split(":", 1)[0]


# A budget is spent by attempts, and those come and go: it needs chances for ever, not one that lasts.
FAIRNESS = Fairness(_kind_of_action, strong=frozenset({"budget is spent"}))


SMALL = Bounds(workers=2, messages=1, faults=2)
_FAIR = Bounds(workers=2, messages=1, faults=2, fair=True)


@dataclass(frozen=True, slots=True)
class Removed:
    """A guard (or an assumption) taken out: on `kind`, within `bounds`, `breaks` must break."""

    name: str
    about: str
    kind: d.Kind
    breaks: str
    bounds: Bounds = SMALL


GUARDS = (
    Removed("unique_key", "one row per tenant, kind and dedupe key", d.REFUND, DONE),
    Removed("row_until_settled", "the outbox row lives until the effect is settled, not until it is published", d.REFUND, ENDS, _FAIR),
    Removed("attempt_budget", "attempts and patience are finite: a person gets it in the end", d.CHARGE, ENDS, _FAIR),
    Removed("fence", "each write carries the attempt's number", d.REFUND, OWNED),
    Removed("lease_check", "the hold refuses the first byte when the lease could end before the answer", d.REFUND, DONE),
    Removed("sent_first", "first_sent_at is committed with the claim, before the first byte", d.REFUND, DONE),
    Removed("doubt_on_lost_lease", "a lost lease leaves the effect in doubt", d.REFUND, DONE),
    Removed("horizon_check", "in doubt and past the horizon nothing is sent", d.REFUND, DONE),
    Removed("connect_first", "the connection is open before the horizon is checked", d.REFUND, DONE),
    Removed("stable_key", "a step has one key for ever", d.REFUND, DONE),
    Removed("front_restores", "a front answer restores the state before the claim, doubt included", d.REFUND, DONE),
    Removed("own_answers_only", "in doubt, a refusal from in front of the key's memory settles nothing", d.REFUND, FAILED),
    Removed("look_up", "past the horizon the provider is asked before anything is called absent", d.REFUND, ABSENT),
    Removed("two_misses", "one miss proves nothing", d.REFUND, ABSENT),
    Removed("spaced_misses", "two misses are an hour apart", d.REFUND, ABSENT),
    Removed("misses_forgotten", "a fresh send forgets the misses before it", d.AGAIN, DONE),
    Removed("progress_first", "the intent's id is committed before the first confirm", d.CHARGE, DONE),
    Removed("fenced_record", "a recovery point is written by the owner only", d.ONCE, DONE),
    Removed("marker_before_dot", "SMTP: the marker is committed before the final dot", d.ONCE, DONE),
    Removed("blind_policy", "SMTP: at_most_once never sends after an unanswered dot", d.ONCE, DONE),
    Removed("copies_limit", "SMTP: at_least_once sends a bounded number of copies", d.TWICE, DONE, Bounds(2, 1, 4)),
    Removed("final_guard", "a settlement only finds what is unsettled", d.REFUND, LEGAL),
    Removed("doubt_survives_replay", "a person's replay leaves the effect in doubt", d.RESEND, DONE),
    Removed("person_looks_twice", "a person resolves as failed after two looks an hour apart", d.REFUND, FAILED),
)  # fmt: skip

ASSUMPTIONS = (
    Removed("keys_kept", "the provider keeps our keys for longer than our horizon", d.REFUND, DONE),
    Removed("idle_connections_close", "no idle connection outlives the hour between two looks, nor those before the forgetting", d.REFUND, DONE),
    Removed("requests_land_soon", "a request lands within the hour or never", d.REFUND, DONE),
    Removed("exact_look_up", "a look-up finds what was done an hour ago (a charge does not need this)", d.REFUND, ABSENT),
)  # fmt: skip

SURVIVED_BY_A_CHARGE = (
    "doubt_on_lost_lease", "horizon_check", "connect_first", "stable_key", "front_restores", "look_up", "two_misses",
    "spaced_misses", "misses_forgotten", "fenced_record", "lease_check", "sent_first", "doubt_survives_replay",
    "keys_kept", "idle_connections_close", "requests_land_soon", "intent_succeeds_once",
)  # fmt: skip
"""Each of these alone may be missing, and a charge is still made at most once: the two steps are a second line."""

TOGETHER = (frozenset({"intent_succeeds_once", "requests_land_soon"}), frozenset({"intent_succeeds_once", "idle_connections_close"}))  # fmt: skip
"""But not both of a pair."""

_EVERYWHERE = (
    "worker settles: succeeded", "worker settles: failed", "worker settles late: succeeded", "late answer stays a fact",
    "worker settles: unknown", "!budget is spent: parked", "worker settles: pending (deferred", "former worker sends",
    "worker settles: unknown (deferred", "relay marks the lost lease", "lease of a dead worker ends", "!message is lost",
    "message finds nothing to do", "?person replays", "?person finds it: succeeded", "?person finds nothing, twice: failed",
    "caller repeats the key", "late request lands",
)  # fmt: skip
_KEYED = ("worker finds its lease over", "provider answers: replayed", "late request lands: replayed", "worker settles: unknown (unknown: refused_in_front", "worker settles: unknown (unknown: status_500")  # fmt: skip
_ASKED = ("look-up misses", "look-up misses too soon", "worker records the miss", "look-up misses again: absent")
REACHED: dict[str, tuple[str, ...]] = {
    d.CHARGE.name: (
        *_EVERYWHERE, *_KEYED, *_ASKED, "look-up hits an intent", "record is refused", "worker records the intent",
        "worker retrieves: succeeded", "worker retrieves: declined", "worker retrieves: processing", "~webhook: failed",
        "worker settles: awaiting", "worker settles: pending (absent", "~webhook: succeeded", "former worker confirms",
    ),
    d.REFUND.name: (*_EVERYWHERE, *_KEYED, *_ASKED, "look-up hits", "worker settles: parked (absent"),
    d.AGAIN.name: (*_EVERYWHERE, *_KEYED, *_ASKED, "look-up hits", "worker settles: pending (absent"),
    d.RESEND.name: (*_EVERYWHERE, *_KEYED, "worker settles: parked (unknown: key_expired"),
    d.ONCE.name: (
        *(name for name in _EVERYWHERE if name != "worker settles: unknown"), "worker settles: parked (unknown: no_answer",
        "copies are used up", "worker takes the mark back",
    ),
    d.TWICE.name: (*_EVERYWHERE, "copies are used up", "worker takes the mark back", "worker settles: parked (unknown: blind_unknown"),
}  # fmt: skip
"""Beginnings of actions that must have happened, or the promises above hold of nothing (I14's "sometimes" counters)."""
