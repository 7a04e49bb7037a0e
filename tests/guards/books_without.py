# ruff: noqa: ARG001 - every story has the same shape
"""One small story for each guard in the books: it ends with the sentence of the broken promise, or with none.

With the guard in, each story ends well; the same story without it does not. They are played in a database of their own.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from service.core.effect import Attempt
from service.core.errors import DedupeConflict, Quarantined, ValidationError
from service.core.keys import dedupe_hash, fingerprint
from service.core.operation import Selection, Verb
from service.core.outcome import Outcome, Succeeded, Unknown
from service.core.state import State
from service.engine import drive, operations
from service.engine import settle as settling
from service.engine.accept import accept_alone
from service.engine.relay import Relay
from service.engine.resolve import As, Wish, resolve
from service.settings import Settings
from service.store import attempts, effects, orphans, outbox
from service.store.attempts import Settlement
from service.store.database import SchemaRefused, statement, transaction
from service.store.watermark import Watermark
from tests.store.answers import final, parked, waiting
from tests.store.asked import AskedProvider, kind_of, made, quiet, receipt
from tests.store.books import ACTOR, LIMITS, Books, order, orders
from tests.store.linked import upon
from tests.store.replays import replay
from tests.store.script import RecordingPublisher

REFUSED = (*SchemaRefused, DBAPIError)
WINDOW = 3


def accepted(*asked) -> list[str]:
    return [answer.id for answer in accept_alone(asked or (order(),), actor=ACTOR)]


def claimed(*ids: str, **options) -> list[Attempt]:
    with statement() as connection:
        return attempts.claim(connection, ids, options.pop("limits", LIMITS), actor=ACTOR, **options)


def settled(*settlements: Settlement) -> set[str]:
    with statement() as connection:
        return {effect_id for effect_id, _ in attempts.settle(connection, settlements, actor=ACTOR)}


def published(books: Books, **settings) -> list[str]:
    publisher = RecordingPublisher()
    Relay(publisher, Settings(**settings), actor="relay").run_once()
    return publisher.ids


# --- accepting -----------------------------------------------------------------------------------------------------


def known_key_other_request(books: Books) -> str:
    accepted(order(amount=4200))
    try:
        accepted(order(amount=9900))
    except DedupeConflict:
        return ""
    return "I4: a charge of 99.00 was accepted under the key of one of 42.00, and will never be made"


def same_key_twice(books: Books) -> str:
    accepted(order())
    try:
        accepted(order())
    except REFUSED:
        return ""  # the constraint stands
    return "I1: one key, two effects" if books.count("effects") == 2 else ""


def refund_of_more_than_was_paid(books: Books) -> str:
    [charge] = accepted(order(amount=4200))
    wish = upon(charge)
    request = {**wish.request, "amount": 999_900}
    try:
        accepted(replace(wish, request=request, amount=999_900, fingerprint=fingerprint("refund", request)))
    except ValidationError:
        return ""
    return "I3: a refund of 9999.00 for a charge of 42.00 is on its way"


# --- claiming ------------------------------------------------------------------------------------------------------


def effect_of_tomorrow(books: Books) -> str:
    [effect_id] = accepted(order(not_before=datetime.now(UTC) + timedelta(days=1)))
    return "a message that came a day early was executed" if claimed(effect_id) else ""


def two_messages_at_once(books: Books) -> str:
    [effect_id] = accepted()
    claimed(effect_id)
    return "I1: two attempts at one effect at the same time" if claimed(effect_id) else ""


def message_for_a_parked_effect(books: Books) -> str:
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    settled(parked(attempt))
    try:
        again = claimed(effect_id)
    except REFUSED:
        return ""
    return "what waits for a person was sent by a late message" if again else ""


def cancel_that_names_a_capture(books: Books) -> str:
    [effect_id] = accepted()
    return "a message of task cancel has begun a charge" if claimed(effect_id, kind="cancel") else ""


def refund_before_its_charge(books: Books) -> str:
    [charge] = accepted()
    [refund] = accepted(upon(charge))
    return "a refund began before its charge had succeeded" if claimed(refund) else ""


def killer_message(books: Books) -> str:
    [effect_id] = accepted()
    limits = replace(LIMITS, budget=2)
    for _ in range(2):
        claimed(effect_id, limits=limits)
        books.end_lease(effect_id)
    third = claimed(effect_id, limits=limits)
    with statement() as connection:
        attempts.park_spent(connection, [effect_id], limits, actor=ACTOR)
    return "" if not third and books.effect(effect_id)["state"] == "parked" else "I10: it is tried for ever"


def first_claim(books: Books) -> str:
    [effect_id] = accepted()
    try:
        claimed(effect_id)
    except REFUSED:
        return ""
    sent = books.effect(effect_id)["first_sent_at"]
    return "" if sent else "W6: an attempt is under way, and nobody will ever know since when a byte may be out"


def worker_that_died_and_another(books: Books) -> str:
    [effect_id] = accepted()
    claimed(effect_id)
    books.end_lease(effect_id)
    [second] = claimed(effect_id)
    return "" if second.in_doubt else "I1: W7 is forgotten, past the horizon it would be sent under a forgotten key"


def relay_that_finds_a_dead_worker(books: Books) -> str:
    [effect_id] = accepted()
    claimed(effect_id)
    books.end_lease(effect_id)
    try:
        with statement() as connection:
            outbox.lease_out(connection, [effect_id], actor=ACTOR)
    except REFUSED:
        return ""
    row = books.effect(effect_id)
    return "" if row["in_doubt"] else "I5: unknown, and free of doubt: a front answer may settle it as failed"


# --- recording and settling ----------------------------------------------------------------------------------------


def _taken_over(books: Books) -> tuple[str, Attempt, Attempt]:
    [effect_id] = accepted()
    [zombie] = claimed(effect_id)
    books.end_lease(effect_id)
    [owner] = claimed(effect_id)
    return effect_id, zombie, owner


def zombie_settles(books: Books) -> str:
    effect_id, zombie, _ = _taken_over(books)
    settled(final(zombie, State.FAILED))
    state = books.effect(effect_id)["state"]
    return "" if state == "executing" else f"I9: attempt 1 has written {state} over attempt 2"


def zombie_settles_beside_its_heir(books: Books) -> str:
    effect_id, zombie, owner = _taken_over(books)
    settled(final(zombie), waiting(owner, State.UNKNOWN, "unknown"))
    # Which of the two the duty follows is then up to Postgres: it may be gone, and the effect is never ended.
    return "I9: the journal says succeeded, and the effect is unknown" if "succeeded" in books.facts(effect_id) else ""


def zombie_records(books: Books) -> str:
    effect_id, zombie, _ = _taken_over(books)
    with statement() as connection:
        attempts.record(connection, [(zombie, {"payment_intent": "pi_zombie"})], 90.0, actor=ACTOR)
    return "I9: attempt 1 has written a recovery point of attempt 2" if books.effect(effect_id)["progress"] else ""


def late_answer_that_goes_back(books: Books) -> str:
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    settled(waiting(attempt, State.AWAITING, "awaiting", outcome={}))
    try:
        settled(waiting(attempt, State.UNKNOWN, "unknown"))
    except REFUSED:
        return ""
    state = books.effect(effect_id)["state"]
    return "" if state == "awaiting" else f"I8: awaiting has become {state} by an answer that came late"


def settled_row(books: Books) -> str:
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    settled(final(attempt))
    return "I7: a settled effect is delivered for ever" if books.duty(effect_id) else ""


def lost_message(books: Books) -> str:
    [effect_id] = accepted()
    first = published(books)
    books.make_due(effect_id)  # the message was lost, and its time is over
    second = published(books)
    return "" if first == second == [effect_id] else "I2: a lost message is a lost charge"


class _Killed(BaseException):
    """As a SIGKILL at this instant: no handler of ours may catch it."""


def killed_between_charge_and_receipt(books: Books) -> str:
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    done = final(attempt)
    honest = effects.accept

    def dies(*_: object, **__: object) -> set[str]:
        raise _Killed

    effects.accept = dies
    try:
        settling.settle([(done, receipt(attempt, _paid()))], actor=ACTOR)
    except _Killed:
        pass
    finally:
        effects.accept = honest
    books.run("update effects set lease_until = now() - interval '1 second' where state = 'executing'")
    for again in claimed(effect_id):
        settling.settle([(final(again), receipt(again, _paid()))], actor=ACTOR)
    letters = books.one("select count(*) from effects where kind = 'email'")
    return "" if letters == 1 else "I2: the charge succeeded, and its receipt will never be sent"


def _paid() -> Succeeded:
    return Succeeded("pi_1")


def deep_backlog(books: Books) -> str:
    accepted(*orders(4 * WINDOW))
    gone = published(books, window=WINDOW)
    return "" if len(gone) == WINDOW else f"{len(gone)} messages are in the broker, where {WINDOW} were allowed"


# --- replaying and going back in time ------------------------------------------------------------------------------


def replay_of_what_is_in_doubt(books: Books) -> str:
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    settled(parked(attempt, "no_answer"))
    replay(effect_id)
    [again] = claimed(effect_id)
    return "" if again.in_doubt else "I1: a replay has made a fresh send of what may have been done"


def _resolved(effect_id: str, wish: Wish, says: Outcome) -> None:
    resolve(kind_of(AskedProvider(says)), effect_id, wish, actor="ada", seconds=5.0)


def person_against_the_provider(books: Books) -> str:
    effect_id = quiet(books, made(books, State.UNKNOWN), hours=48)
    _resolved(effect_id, Wish(As.FAILED, "INC-1", "I think so"), Succeeded("pi_1", {"charge": "ch_1"}))
    return "I5: failed, says a person, and the provider has it" if books.effect(effect_id)["state"] == "failed" else ""


def person_in_a_hurry(books: Books) -> str:
    effect_id = made(books, State.UNKNOWN)
    _resolved(effect_id, Wish(As.FAILED, "INC-1", "not found"), Unknown("not_found"))
    return "I5: failed, and the last request may still land" if books.effect(effect_id)["state"] == "failed" else ""


def person_who_sends_again(books: Books) -> str:
    effect_id = made(books, State.UNKNOWN)
    _resolved(effect_id, Wish(As.PENDING, "INC-1", "not found"), Unknown("not_found"))
    row = books.effect(effect_id)
    return "I1: what may have been done is sent afresh" if row["state"] == "pending" and not row["in_doubt"] else ""


def replay_of_a_living_attempt(books: Books) -> str:
    [effect_id] = accepted()
    claimed(effect_id)
    return "a person was told that what is under way would be replayed" if replay(effect_id) else ""


def replay_of_what_has_changed(books: Books) -> str:
    """Parked, planned; somebody else replays it, and it is parked again, for a reason that nobody has looked at."""
    [effect_id] = accepted()
    [attempt] = claimed(effect_id)
    settled(parked(attempt, "no_answer"))
    plan = operations.plan(Verb.REPLAY, Selection(ids=(effect_id,)), actor="ada")
    replay(effect_id)
    [attempt] = claimed(effect_id)
    settled(parked(attempt, "echo_mismatch"))
    operations.start(plan.id, reason="INC-1", actor="ada", door="cli")
    drive.run_once()
    return (
        "what has changed since somebody looked was replayed" if books.effect(effect_id)["state"] == "pending" else ""
    )


def promoted_replica(books: Books) -> str:
    first, second = accepted(*orders(2))
    claimed(first)
    books.run("alter table incarnations disable trigger user")
    books.run("update incarnations set timeline = timeline - 1")
    return _claims(second, "I1: a replica that was promoted sends what its primary may have sent")


def older_copy(books: Books) -> str:
    first, second = accepted(*orders(2))
    with tempfile.TemporaryDirectory() as folder:
        watermark = Watermark(Path(folder))
        try:
            claimed(first, watermark=watermark)
            seen = watermark.seen()
            watermark.saw(replace(seen, lsn=seen.lsn + 1, attempt=seen.attempt + 1))
            return _claims(second, "I1: a copy from before the last claim sends again", watermark=watermark)
        finally:
            watermark.close()


def _claims(effect_id: str, harm: str, **options) -> str:
    try:
        return harm if claimed(effect_id, **options) else ""
    except Quarantined:
        return ""


def forgotten_charge(books: Books) -> str:
    asked = order("lost:1")
    name = dedupe_hash(asked.tenant, asked.kind, asked.dedupe_key)
    moved = orphans.Orphan("stripe", "pi_moved", "charge", asked.id, name, 4200, "eur", datetime.now(UTC))
    with transaction() as connection:
        orphans.keep(connection, moved, incarnation=None)
    [effect_id] = accepted(replace(asked, id=order().id))
    [attempt] = claimed(effect_id)
    known = attempt.progress.get("payment_intent") == "pi_moved"
    return "" if known and attempt.in_doubt else "I1: a repeated key begins anew where its money has moved already"
