"""Who acts in a seed: relays, a broker, workers, webhooks and persons, each with the product's own decisions.

Real code runs for all that is decided: `perform` of the providers under a real `Hold`, `settlement` with its backoff,
the judgement of a look, and what a person may resolve. What a commit does is `database.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from service.core.effect import Attempt
from service.core.errors import DependencyUnavailable, Quarantined
from service.core.outcome import Awaiting, Deferred, Failed, Outcome, Succeeded
from service.core.state import State
from service.engine import execute, relay, resolve, verify
from service.engine.hold import Hold
from service.engine.judgement import Finding, judge
from service.engine.resolve import As, Wish
from service.engine.settlement import settlement
from service.store.attempts import Settlement
from service.store.outbox import Due
from service.store.verdicts import Quiet
from tests.model.decisions import FINAL
from tests.simulation import nemesis as n
from tests.simulation.database import LIMITS, Broken, Row

if TYPE_CHECKING:
    from tests.simulation.world import World

DEADLINE_SECONDS = 20.0
AGAIN_SECONDS = 1.0  # between two tries at a database that is away


# --- relays and the broker -------------------------------------------------------------------------------------------


def relay_looks(w: World) -> bool:
    """Take what is due, then publish it; W3 lies between. False when it has to wait until somebody is back."""
    hub, nemesis = w.hub, w.nemesis
    # While every worker is paused, the window of published effects is full and nothing is taken.
    if w.database.closed and w.off != "gate":
        w.database.quarantine()  # the sentry writes it down; the release looks at once
        return False
    until = max(w.down_until, w.broker_until, w.paused_until())
    if hub.now < until:
        w.due(until - hub.now)
        return False
    try:
        taken = w.database.commit(w.database.take)
    except DependencyUnavailable:
        w.due(max(AGAIN_SECONDS, w.database.away_until - hub.now))
        return False
    if nemesis.fires(n.RELAY_DIES):
        return True
    away = nemesis.fires(n.BROKER_AWAY)
    for ids in messages(taken):
        if not away or w.random.random() < 0.5:
            publish(w, ids)
    if away:
        w.broker_until = hub.now + nemesis.span()
        w.database.put_back([row for row, _ in taken])
    return True


def messages(taken: list[tuple[Row, bool]]) -> list[tuple[str, ...]]:
    """The ids of each message; one row is one message."""
    if len(taken) < 2:
        return [(row.id,) for row, _ in taken]
    due = [Due(row.id, row.kind, "lane", 0, again) for row, again in taken]
    return [message.effect_ids for message in relay._messages(due)]


def publish(w: World, ids: Sequence[str]) -> None:
    nemesis = w.nemesis
    if not nemesis.chance:
        w.hub.at(0.01 + 0.2 * w.random.random(), w.deliver, ids)
        return
    if nemesis.fires(n.MAIL_LOST):
        return
    for _ in range(w.random.randint(2, 5) if nemesis.fires(n.DOUBLED) else 1):
        delay = nemesis.span() if nemesis.fires(n.DELAYED) else 0.01 + 0.2 * w.random.random()
        w.hub.at(delay, w.deliver, ids)


# --- workers ---------------------------------------------------------------------------------------------------------


def run_message(w: World, ids: Sequence[str]) -> None:
    """Claim what is due and free; each effect is then performed on its own."""
    hub, until = w.hub, w.hub.now + execute.CLAIM_PATIENCE_SECONDS
    while True:
        w.point()
        claimed_at = hub.monotonic()
        try:
            claimed = w.database.commit(lambda: w.database.claim(ids))
            break
        except Quarantined:
            w.database.quarantine()
            w.hits["claim refused: quarantine"] += 1
            return
        except DependencyUnavailable:
            if hub.now > until:
                return
            hub.sleep(max(AGAIN_SECONDS, min(w.database.away_until - hub.now, 40.0)))
    process = hub.running.process
    for attempt in claimed[1:]:
        hub.spawn(process, perform, w, attempt, claimed_at)
    if claimed:
        perform(w, claimed[0], claimed_at)


def perform(w: World, attempt: Attempt, claimed_at: float) -> None:
    """One attempt: W6 before the provider, W7 and W8 inside it, W9 after it."""
    w.point()
    hold = Hold(attempt, claimed_at=claimed_at, lease=LIMITS.lease, deadline=DEADLINE_SECONDS, record=w.record)
    previous, w.sent = w.sent, None
    outcome = execute._perform(w.providers[attempt.kind], attempt, hold)
    w.sent = previous
    done = settled(w, attempt, outcome)
    w.hits[f"learned {type(outcome).__name__}"] += 1
    w.point()
    write(w, done, until=claimed_at + LIMITS.lease)


def settled(w: World, attempt: Attempt, outcome: Outcome) -> Settlement:
    """What the outcome means, by the product."""
    provider = w.providers[attempt.kind]
    done = settlement(
        attempt,
        outcome,
        provider=provider.name,
        guarantee=provider.guarantee,
        limits=LIMITS,
        random=w.random.random,
    )
    if w.off == "front_restores" and isinstance(outcome, Deferred):
        return replace(done, state=State.PENDING, in_doubt=False)
    return done


def write(w: World, done: Settlement, *, until: float) -> bool:
    """Settle, tried as long as the lease lasts."""
    while True:
        try:
            return bool(w.database.commit(lambda: w.database.settle(done, w.follow_up)))
        except DependencyUnavailable:
            if w.hub.monotonic() > until:
                w.hits["settlement lost"] += 1
                return False
            w.hub.sleep(max(AGAIN_SECONDS, min(w.database.away_until - w.hub.now, LIMITS.lease)))


# --- webhooks and looks ----------------------------------------------------------------------------------------------


def webhook(w: World, intent: str) -> None:
    """Received, nudged, and looked at a little later; the event itself is not believed."""
    row = w.database.rows.get(w.books.intents[intent]["metadata"]["effect_id"])
    if row is None:
        w.hits["webhook about a forgotten effect"] += 1
        return
    w.database.nudge(row)
    w.hub.at(15.0, lambda _: w.hub.spawn(w.api, look, w, row, intent))


def look(w: World, row: Row, hint: str | None) -> None:
    """`verify`, with an intent that an event has named."""
    if w.hub.now < max(w.down_until, w.database.away_until) or row.id not in w.database.rows:
        return
    if row.state == "executing" and row.lease_until < w.hub.now:
        w.database.lease_out(row)
    if row.state == "executing" or (row.state == "pending" and not row.in_doubt):
        return
    attempt = w.database.attempt(row, row.state)
    provider, ref = w.providers[row.kind], row.provider_ref or row.progress.get("payment_intent")
    outcome = verify.ask(provider, attempt, seconds=DEADLINE_SECONDS, intent=hint if row.kind == "charge" else None)
    found = judge(attempt.prior, ref, outcome)
    if found.break_class and another_was_asked_for(w, row):
        w.hits["contradicts: another request before the restore"] += 1
    elif found.break_class:
        raise Broken(f"I5 a look at {row.id} ({attempt.prior}) contradicts our books: {found}")
    intent = verify._unconfirmed(outcome, hint)
    if intent is not None:
        w.database.adopt(row, attempt.number, intent)
    if found.finding is Finding.SETTLED and row.state not in FINAL:
        w.hits[f"settled by a look: {type(outcome).__name__}"] += 1
        write(w, settled(w, attempt, outcome), until=w.hub.monotonic() + 5.0)


def another_was_asked_for(w: World, row: Row) -> bool:
    """Whether the object that an unsettled effect has found was made for another amount, in a life that was lost.

    A database that has forgotten a key cannot refuse another request under it (I4). What comes then finds the first
    one's object, sends nothing and waits for a person; there a contradiction is the only true answer (seed 11757597).
    """
    first = w.database.ever.get(row.progress.get("effect_id", ""))
    if first is None or row.state in FINAL:
        return False
    return bool(first.id not in w.database.rows and first.request["amount"] != row.request["amount"])


# --- persons ---------------------------------------------------------------------------------------------------------


def person(w: World, row: Row) -> None:
    """Somebody who is honest, looks at what is stuck, and does what the commands let him do."""
    if row.state in FINAL or w.hub.now < max(w.down_until, w.database.away_until) or row.id not in w.database.rows:
        return
    wish = w.random.choice((n.LOOKED, n.REPLAYED, n.REPLAYED, n.RESOLVED, n.RESOLVED))
    w.hits[wish] += 1
    if wish == n.LOOKED:
        look(w, row, None)
    elif wish == n.RESOLVED:
        declare(w, row)
    else:
        w.hits["replayed"] += w.database.replay(row)


def declare(w: World, row: Row) -> None:
    """`resolve`: the provider is asked first, and then the product says whether the person may."""
    done = w.books.moved[row.id] > 0
    if row.kind != "email":
        w.hub.sleep(600.0 * w.random.random())  # from what he has seen there to what he types here
    if row.id not in w.database.rows:
        return  # the database went back meanwhile: there is no such effect, the command says (seed 11757861)
    attempt = w.database.attempt(row, row.state)
    provider = w.providers[row.kind]
    facts = {"in_doubt": row.in_doubt, "parked_reason": row.parked_reason, "provider_ref": row.provider_ref}
    stands = verify.Standing(attempt, facts)
    ref = row.provider_ref or "found-by-hand"
    absent = As.PENDING if w.random.random() < 0.5 else As.FAILED
    wish = Wish(As.SUCCEEDED if done else absent, "a reason", "evidence", ref if done else None)
    quiet = Quiet(inf if row.begun_at is None else w.hub.now - row.begun_at, row.server_error)
    if resolve._unfit(stands, wish):
        return
    asked = verify.ask(provider, attempt, seconds=DEADLINE_SECONDS)
    if isinstance(asked, Succeeded | Failed | Awaiting) and done:
        wish = replace(wish, ref=None)
    if resolve.objects(wish, stands.ref, asked) or resolve._too_soon(stands, wish, asked, quiet):
        w.hits["a person's wish is refused"] += 1
        return
    if row.attempt != attempt.number or row.state != attempt.prior.value or row.id not in w.database.rows:
        return
    w.hits[f"resolved as {wish.as_.value}"] += 1
    if wish.as_ is As.PENDING:
        w.database.release(row)
        return
    case: Any = resolve._Case(None, provider, stands, wish, "person", asked)  # type: ignore[arg-type]
    outcome = resolve._outcome(case, None, {"reason": "a reason"})
    w.database.settle(settled(w, attempt, outcome), w.follow_up)
