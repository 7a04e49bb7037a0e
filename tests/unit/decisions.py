"""Every decision of the pure parts of the engine, case by case, as a table that can be read and compared.

What an answer means for an effect (`judge`), what an attempt writes (`settlement`), what the provider has against a
person's wish (`objects`), what an event is worth (`inbox`), what an object contradicts (`recover`): small functions with few inputs, so all of their inputs are tried. The table is kept in
decisions.txt; whoever changes a decision changes a line there, and a reviewer sees which.

    python -m tests.unit.decisions        write the table anew
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from service.core.effect import Attempt, Guarantee, Policy
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.engine import inbox, recover
from service.engine.judgement import answer, judge
from service.engine.resolve import As, Wish, objects
from service.engine.settlement import settlement
from service.providers.stripe.leftovers import Leftover
from service.store.attempts import Limits
from service.store.inbox import Row
from service.store.recovery import Known

KEPT = Path(__file__).with_name("decisions.txt")
Table = dict[str, Any]

OUTCOMES: dict[str, Outcome] = {
    "succeeded": Succeeded("pi_1", {"charge": "ch_1"}, {"status": 200}),
    "succeeded as another": Succeeded("pi_2"),
    "failed": Failed("card_declined", "Declined.", {"decline_code": "lost_card"}, {"status": 402}),
    "processing": Awaiting("processing", "pi_1", 60.0, {"status": "processing"}, {"status": 200}),
    "awaiting without detail": Awaiting("requires_action"),
    "front answer": Deferred("rate_limited", None, {"status": 429}),
    "front answer with a wish": Deferred("in_progress", 7.0),
    "no answer": Unknown("no_answer_timeout", {"phase": "read"}),
    "stored 500": Unknown("status_500", {}, 1800.0),
    "not found": Unknown("not_found"),
    "not confirmed": Unknown("not_confirmed"),
    "cannot be asked": Unknown("cannot_be_asked"),
    "hint refused": Unknown("hint_refused"),
    "key expired": Unknown("key_expired"),
    "blind": Unknown("blind_unknown"),
    "absent": Absent("absent", evidence={"misses": 2}),
    "absent and harmless": Absent("absent", harmless=True),
    "contradiction": Contradiction("echo_mismatch", {"status": 200}),
}
LIMITS = Limits(lease=90.0, budget=5, age_limit=3600.0)
_ATTEMPT = Attempt(
    id="effect",
    tenant="default",
    kind="charge",
    number=3,
    prior=State.PENDING,
    in_doubt=False,
    sent_age_seconds=0.0,
    tries=1,
    waited_seconds=0.0,
    request={},
    progress={},
    policy=Policy.AT_MOST_ONCE,
    dedupe_key="key",
    context={},
)
_BEFORE = {"first": {}, "in doubt": {"prior": State.UNKNOWN, "in_doubt": True}}
_SORTS = [(Guarantee.KEYED, policy) for policy in Policy] + [(Guarantee.BLIND, policy) for policy in Policy]
_WAITS = {
    "fresh": {},
    "last try": {"tries": 4},
    "budget spent": {"tries": 5},
    "budget overspent": {"tries": 6},
    "almost too old": {"waited_seconds": 3596.0},
    "too old": {"waited_seconds": 3600.0},
}


def judgements() -> Table:
    """What an answer means, for an effect in each state, known to the provider or not."""
    cases = product(State, (None, "pi_1"), OUTCOMES.items())
    return {f"{state}, {ref}: {name}": _plain(asdict(judge(state, ref, says))) for state, ref, (name, says) in cases}


def answers() -> Table:
    """The provider's answer in one word."""
    return {name: answer(says) for name, says in OUTCOMES.items()}


def settlements() -> Table:
    """What an attempt writes."""
    cases = product(_BEFORE.items(), _SORTS, OUTCOMES.items())
    told = {
        f"{before}, {guarantee}, {policy}: {name}": _settled(
            replace(_ATTEMPT, policy=policy, **change), says, guarantee
        )
        for (before, change), (guarantee, policy), (name, says) in cases
    }
    worn = product(_WAITS.items(), OUTCOMES.items())
    return told | {
        f"{wait}: {name}": _settled(replace(_ATTEMPT, **change), says, Guarantee.KEYED)
        for (wait, change), (name, says) in worn
    }


def objections() -> Table:
    """What the provider has against a person's wish; null when it agrees or cannot tell."""
    cases = product(As, (None, "pi_1", "pi_2"), (None, "pi_1"), OUTCOMES.items())
    return {
        f"{as_} as {named}, known as {ref}: {name}": objects(Wish(as_, "why", "how", named), ref, says)
        for as_, named, ref, (name, says) in cases
    }


_ROW = Row(
    provider="stripe",
    event_id="evt_1",
    type="payment_intent.succeeded",
    object_id="pi_1",
    object_type="payment_intent",
    payment_intent="pi_1",
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    tries=1,
    by_name=True,
    effect_id="effect",
    kind="charge",
    state=State.UNKNOWN,
    ref="pi_1",
    age_seconds=60.0,
)
_TYPES = (
    "payment_intent.succeeded",
    "payment_intent.canceled",
    "charge.captured",
    "refund.created",
    "charge.dispute.created",
)
_EVENTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "of another sort": {"object_type": "customer"},
    "of nobody": {"effect_id": None},
    "of no effect": {"state": None},
    "of another kind": {"kind": "email"},
    "of another intent": {"payment_intent": "pi_2"},
    "of another intent, by reference": {"payment_intent": "pi_2", "by_name": False},
    "of a refund, another intent": {"payment_intent": "pi_2", "object_type": "refund"},
    "of a charge, another intent": {"payment_intent": "pi_2", "object_type": "charge"},
    "without an intent": {"payment_intent": None},
    "of an effect without a reference": {"ref": None, "payment_intent": "pi_2"},
    "after three days": {"age_seconds": 3 * 86400.0},
}


def sightings() -> Table:
    """What an event is worth at sight, for an effect in each state; null: a look."""
    cases = product(State, _TYPES, _EVENTS.items())
    return {
        f"{type_} {name}, {state}": inbox._at_sight(
            replace(_ROW, type=type_, **{"state": state, **change}), {"charge": None}
        )  # type: ignore[dict-item]
        for state, type_, (name, change) in cases
    } | {f"second, {name}": inbox._second(replace(_ROW, **change)) for name, change in _EVENTS.items()}


def waits() -> Table:
    """Seconds until an event is looked at again, by its tries."""
    return {str(tries): inbox._wait(replace(_ROW, tries=tries)) for tries in (1, 2, 3, 8, 9, 10, 21, 22, 100)}


_THING = Leftover(
    "charge", "pi_1", "effect", None, 4200, "eur", "succeeded", datetime(2026, 1, 1, tzinfo=UTC), moved=True
)
_THINGS = {
    "same": {},
    "not moved": {"moved": False},
    "a refund": {"kind": "refund"},
    "an unmoved refund": {"kind": "refund", "moved": False},
}
_KNOWN: dict[str, dict[str, Any]] = {
    "without a reference": {"ref": None},
    "by this reference": {},
    "by another": {"ref": "pi_2"},
    "of another amount": {"amount": 1},
    "of another currency": {"currency": "usd"},
    "of another amount and unmoved reference": {"amount": 1, "ref": None},
}


def contradictions() -> Table:
    """The class of break when a provider's object cannot be what our books say; null when it can."""
    cases = product(State, _THINGS.items(), _KNOWN.items())
    return {
        f"{thing}, known {name}, {state}": recover._contradiction(
            replace(_THING, **change), replace(Known("effect", "charge", state.value, "pi_1", 4200, "eur"), **known)
        )
        for state, (thing, change), (name, known) in cases
    }


def lines() -> list[str]:
    """The whole table, a case a line."""
    tables = {"judge": judgements(), "answer": answers(), "settlement": settlements(), "objects": objections()}
    tables |= {"inbox": sightings(), "wait": waits(), "recover": contradictions()}
    return [
        f"{name} | {case} | {json.dumps(decided, sort_keys=True, ensure_ascii=False)}"
        for name, table in tables.items()
        for case, decided in table.items()
    ]


def _settled(attempt: Attempt, says: Outcome, guarantee: Guarantee) -> Any:
    done = settlement(attempt, says, provider="stripe", guarantee=guarantee, limits=LIMITS, random=lambda: 0.25)
    return _plain({name: getattr(done, name) for name in type(done).__slots__ if getattr(done, name) not in (None, {})})


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))


if __name__ == "__main__":
    KEPT.write_text("\n".join(lines()) + "\n", encoding="utf-8")
