"""Attempts: one owner at a time, a fresh number for each, and no write without the number (I9)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from service.core.state import FINAL, State
from service.store import attempts, database, outbox
from tests.store.answers import final, parked, waiting
from tests.store.books import ACTOR, LIMITS, order, orders


def lease_out(books, *ids):
    with database.statement() as connection:
        lost = outbox.lease_out(connection, ids, actor="relay")
    books.check()
    return lost


# --- claim -----------------------------------------------------------------------------------------------------------


def test_w6_the_claim_commits_a_number_a_lease_and_the_first_send_before_any_byte(books):
    [effect_id] = books.accept(order(context={"trace": "t"}))
    [attempt] = books.claim(effect_id)
    assert (attempt.number, attempt.prior, attempt.in_doubt) == (1, State.PENDING, False)
    assert (attempt.kind, attempt.dedupe_key, attempt.request["amount"]) == ("charge", "order:17:charge", 4200)
    assert attempt.context == {"trace": "t"}
    assert 0 <= attempt.sent_age_seconds < 5
    row = books.effect(effect_id)
    assert (row["state"], row["attempt"]) == ("executing", 1)
    assert timedelta(seconds=85) < row["lease_until"] - row["first_sent_at"] <= timedelta(seconds=91)
    assert books.facts(effect_id) == ["accepted", "claimed"]


def test_w4_a_doubled_message_claims_nothing(books):
    [effect_id] = books.accept()
    assert len(books.claim(effect_id)) == 1
    assert books.claim(effect_id) == []
    assert books.claim(effect_id, effect_id) == []
    assert books.effect(effect_id)["attempt"] == 1


def test_the_same_id_twice_in_one_message_is_one_attempt(books):
    [effect_id] = books.accept()
    assert len(books.claim(effect_id, effect_id)) == 1


def test_many_workers_with_the_same_message_have_one_owner_each(books):
    ids = books.accept(*orders(40))
    together = threading.Barrier(8)

    def worker(turn: int):
        together.wait(20)
        with database.statement() as connection:
            return [a.id for a in attempts.claim(connection, ids[:: 1 - 2 * (turn % 2)], LIMITS, actor=ACTOR)]

    with ThreadPoolExecutor(8) as pool:
        claimed = [effect_id for part in pool.map(worker, range(8)) for effect_id in part]
    assert sorted(claimed) == sorted(ids)


@pytest.mark.parametrize("field", ["eta", "backoff"])
def test_a_message_that_comes_before_the_time_executes_nothing(books, field):
    if field == "eta":
        [effect_id] = books.accept(order(not_before=datetime.now(UTC) + timedelta(hours=1)))
    else:
        [effect_id] = books.accept()
        [attempt] = books.claim(effect_id)
        books.settle(waiting(attempt))
    assert books.claim(effect_id) == []
    books.make_due(effect_id)
    assert len(books.claim(effect_id)) == 1


def test_what_is_settled_or_parked_or_foreign_is_not_claimed(books):
    done, held = books.accept(order("done"), order("held"))
    one, other = books.claim(done, held)
    books.settle(final(one), parked(other))
    books.make_due(held)
    assert books.claim(done, held, order().id) == []


def test_first_sent_at_stays_that_of_the_first_attempt(books):
    [effect_id] = books.accept()
    [first] = books.claim(effect_id)
    sent = books.effect(effect_id)["first_sent_at"]
    books.settle(waiting(first))
    books.make_due(effect_id)
    [second] = books.claim(effect_id)
    assert books.effect(effect_id)["first_sent_at"] == sent
    assert (second.number, second.prior, second.in_doubt) == (2, State.PENDING, False)


def test_after_a_lease_has_run_out_the_next_attempt_is_in_doubt_and_the_journal_says_why(books):
    [effect_id] = books.accept()
    [lost] = books.claim(effect_id)
    assert books.claim(effect_id) == [], "a live lease is left alone"
    books.end_lease(effect_id)
    [attempt] = books.claim(effect_id)
    assert (lost.number, attempt.number) == (1, 2)
    assert (attempt.prior, attempt.in_doubt) == (State.UNKNOWN, True)
    assert books.facts(effect_id) == ["accepted", "claimed", "leased_out", "claimed"]
    numbers = books.rows("select attempt from journal where fact in ('leased_out', 'claimed') order by id")
    assert [row["attempt"] for row in numbers] == [1, 1, 2]


def test_doubt_once_there_stays_through_claims_and_front_answers(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    for number in (2, 3):
        books.make_due(effect_id)
        [attempt] = books.claim(effect_id)
        assert (attempt.number, attempt.prior, attempt.in_doubt) == (number, State.UNKNOWN, True)
        books.settle(waiting(attempt, State.UNKNOWN, in_doubt=True))
    assert books.effect(effect_id)["state"] == "unknown"


# --- spent -----------------------------------------------------------------------------------------------------------


def park_spent(books, limits, *ids):
    with database.statement() as connection:
        spent = attempts.park_spent(connection, ids, limits, actor=ACTOR)
    books.check()
    return spent


def test_a_poison_effect_that_kills_its_worker_each_time_is_parked_when_its_attempts_are_spent(books):
    limits = replace(LIMITS, budget=3)
    [effect_id] = books.accept()
    for number in (1, 2, 3):
        assert park_spent(books, limits, effect_id) == []
        [attempt] = books.claim(effect_id, limits=limits)
        assert attempt.number == number
        books.end_lease(effect_id)
    assert books.claim(effect_id, limits=limits) == []
    assert park_spent(books, limits, effect_id) == [effect_id]
    row, duty = books.effect(effect_id), books.duty(effect_id)
    assert (row["state"], row["in_doubt"], row["lease_until"]) == ("parked", True, None)
    assert (duty["road"], duty["parked_reason"]) == ("parked", "attempt_budget")
    assert books.one("select evidence ->> 'reason' from journal where fact = 'parked'") == "attempt_budget"
    assert park_spent(books, limits, effect_id) == []


def test_an_effect_that_is_too_old_is_parked_without_doubt_if_nothing_was_lost(books):
    limits = replace(LIMITS, age_limit=-5.0)
    [effect_id] = books.accept()
    assert len(books.claim(effect_id, limits=limits)) == 1, "age counts from the first send, not from the accept"
    books.settle(waiting(replace_number(effect_id, 1)))
    books.make_due(effect_id)
    assert books.claim(effect_id, limits=limits) == []
    assert park_spent(books, limits, effect_id) == [effect_id]
    assert books.effect(effect_id)["in_doubt"] is False
    assert books.duty(effect_id)["parked_reason"] == "age_limit"


def replace_number(effect_id, number):
    """Just enough of an attempt to settle by."""
    return type("Number", (), {"id": effect_id, "number": number})()


def test_a_live_attempt_is_never_parked_from_outside(books):
    [effect_id] = books.accept()
    books.claim(effect_id)
    assert park_spent(books, replace(LIMITS, budget=1, age_limit=-5.0), effect_id) == []


# --- record ----------------------------------------------------------------------------------------------------------


def record(books, *rows, lease=90.0):
    with database.statement() as connection:
        owned = attempts.record(connection, rows, lease, actor=ACTOR)
    books.check()
    return owned


def test_w11_the_recovery_point_is_what_the_next_attempt_goes_on_from(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    assert record(books, (attempt, {"payment_intent": "pi_1"})) == {(effect_id, 1)}
    assert record(books, (attempt, {"step": "confirm"})) == {(effect_id, 1)}
    books.end_lease(effect_id)
    [second] = books.claim(effect_id)
    assert second.progress == {"payment_intent": "pi_1", "step": "confirm"}
    assert books.facts(effect_id).count("progressed") == 2


def test_recording_renews_the_lease(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id, limits=replace(LIMITS, lease=5.0))
    before = books.effect(effect_id)["lease_until"]
    record(books, (attempt, {}), lease=500.0)
    assert books.effect(effect_id)["lease_until"] - before > timedelta(seconds=400)


def test_i9_recording_is_refused_after_the_lease_and_to_an_old_number(books):
    [effect_id] = books.accept()
    [old] = books.claim(effect_id)
    books.end_lease(effect_id)
    assert record(books, (old, {"payment_intent": "pi_x"})) == set()
    [new] = books.claim(effect_id)
    # Both in one batch, as when one worker has both: only one of them may go on to what lies behind the point.
    assert record(books, (old, {"payment_intent": "pi_x"}), (new, {"payment_intent": "pi_1"})) == {(effect_id, 2)}
    assert books.effect(effect_id)["progress"] == {"payment_intent": "pi_1"}


# --- settle ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(FINAL))
def test_w9_a_final_settlement_takes_the_duty_away_in_the_same_commit(books, state):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    assert books.settle(final(attempt, state, evidence={"request_id": "req_1"})) == {effect_id}
    row = books.effect(effect_id)
    assert (row["state"], row["outcome"], row["lease_until"]) == (state, {"charge": "ch_1"}, None)
    assert row["settled_at"] is not None
    assert books.duty(effect_id) is None
    assert books.one("select evidence from journal where fact = %s", state.value) == {"request_id": "req_1"}


@pytest.mark.parametrize(
    ("state", "fact"),
    [
        (State.PENDING, "deferred"),
        (State.UNKNOWN, "unknown"),
        (State.UNKNOWN, "deferred"),
        (State.AWAITING, "awaiting"),
    ],
)
def test_any_other_settlement_keeps_the_duty_and_makes_it_come_due_again(books, state, fact):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    assert books.settle(waiting(attempt, state, fact)) == {effect_id}
    row, duty = books.effect(effect_id), books.duty(effect_id)
    assert (row["state"], row["lease_until"], row["settled_at"]) == (state, None, None)
    assert (duty["road"], duty["last_error"]) == ("later", "rate_limited")
    assert duty["available_at"] == row["not_before"]
    assert timedelta(seconds=25) < row["not_before"] - datetime.now(UTC) <= timedelta(seconds=31)


def test_a_parked_settlement_waits_for_a_person_with_its_reason(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    assert books.settle(parked(attempt)) == {effect_id}
    duty = books.duty(effect_id)
    assert (duty["road"], duty["parked_reason"]) == ("parked", "echo_mismatch")
    assert duty["parked_at"] is not None


@pytest.mark.parametrize("make", [final, waiting, parked], ids=["final", "waiting", "parked"])
def test_i9_an_attempt_that_was_overtaken_writes_only_that_its_answer_was_late(books, make):
    [effect_id] = books.accept()
    [old] = books.claim(effect_id)
    books.end_lease(effect_id)
    [new] = books.claim(effect_id)
    before = books.effect(effect_id), books.duty(effect_id)
    assert books.settle(make(old)) == set()
    assert (books.effect(effect_id), books.duty(effect_id)) == before
    assert books.facts(effect_id)[-1] == "late_answer"
    assert books.settle(final(new)) == {effect_id}


ANSWERS = {
    "succeeded": final,
    "failed": lambda attempt: final(attempt, State.FAILED),
    "deferred": lambda attempt: waiting(attempt, in_doubt=True),
    "unknown": lambda attempt: waiting(attempt, State.UNKNOWN, "unknown"),
    "parked": parked,
}


@pytest.mark.parametrize("late_first", [True, False])
@pytest.mark.parametrize("now", ANSWERS)
@pytest.mark.parametrize("late", ANSWERS)
def test_i9_two_attempts_of_one_effect_that_end_in_one_batch_are_told_apart(books, late, now, late_first):
    """One worker has both: its first attempt's lease ran out, its second one went on. One duty, one end."""
    [effect_id] = books.accept()
    [old] = books.claim(effect_id)
    books.end_lease(effect_id)
    [new] = books.claim(effect_id)
    batch = [ANSWERS[late](old), ANSWERS[now](new)]
    with database.statement() as connection:
        owned = attempts.settle(connection, batch if late_first else batch[::-1], actor=ACTOR)
    assert owned == {(effect_id, 2)}
    states = {"deferred": "pending"}
    assert books.effect(effect_id)["state"] == states.get(now, now)
    duty = books.duty(effect_id)
    assert (duty and duty["road"]) == {"succeeded": None, "failed": None, "parked": "parked"}.get(now, "later")
    assert sorted(books.facts(effect_id)[-2:]) == sorted(["late_answer", now])
    books.check()


def test_i9_nothing_moves_a_settled_effect_and_what_contradicts_it_is_kept(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.settle(final(attempt))
    before = books.effect(effect_id)
    contradiction = final(attempt, State.FAILED, evidence={"status": 402})
    assert books.settle(contradiction) == set()
    assert books.effect(effect_id) == before
    assert books.one("select evidence from journal where fact = 'late_answer'") == {"status": 402, "answer": "failed"}


def test_a_late_answer_of_the_same_attempt_settles_what_the_relay_had_declared_lost(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.end_lease(effect_id)
    assert lease_out(books, effect_id) == [effect_id]
    assert books.effect(effect_id)["state"] == "unknown"
    assert books.settle(final(attempt)) == {effect_id}
    assert books.effect(effect_id)["state"] == "succeeded"
    assert books.facts(effect_id) == ["accepted", "claimed", "leased_out", "succeeded"]


def test_a_late_answer_settles_what_was_parked_since(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.end_lease(effect_id)
    park_spent(books, replace(LIMITS, budget=1), effect_id)
    assert books.settle(final(attempt, State.FAILED)) == {effect_id}
    assert books.duty(effect_id) is None


@pytest.mark.parametrize("make", [waiting, parked], ids=["waiting", "parked"])
def test_a_late_answer_that_settles_nothing_moves_nothing(books, make):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.end_lease(effect_id)
    lease_out(books, effect_id)
    assert books.settle(make(attempt)) == set()
    assert books.effect(effect_id)["state"] == "unknown"


def test_an_answer_after_the_lease_that_nobody_noticed_still_settles(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.end_lease(effect_id)
    assert books.settle(final(attempt)) == {effect_id}


def test_only_attempts_whose_lease_is_over_are_leased_out(books):
    ids = books.accept(*orders(4))
    books.claim(*ids[:3])
    books.end_lease(ids[1])
    assert lease_out(books, *ids) == [ids[1]]
    assert lease_out(books, *ids) == []
    row = books.effect(ids[1])
    assert (row["state"], row["in_doubt"], row["lease_until"]) == ("unknown", True, None)


def test_a_batch_settles_each_on_its_own_terms(books):
    ids = books.accept(*orders(4))
    one, two, three, four = sorted(books.claim(*ids), key=lambda a: ids.index(a.id))
    stale = replace(four, number=0)
    owned = books.settle(final(one), waiting(two), parked(three), final(stale))
    assert owned == set(ids[:3])
    states = [books.effect(effect_id)["state"] for effect_id in ids]
    assert states == ["succeeded", "pending", "parked", "executing"]


def test_a_progress_note_or_outcome_given_earlier_is_not_erased_by_a_later_wait(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    awaiting = waiting(
        attempt, State.AWAITING, "awaiting", outcome={"next": "3ds"}, provider="stripe", provider_ref="pi_1"
    )
    books.settle(awaiting)
    books.make_due(effect_id)
    [attempt] = books.claim(effect_id)
    assert attempt.prior is State.AWAITING
    books.settle(waiting(attempt, State.AWAITING))
    row = books.effect(effect_id)
    assert (row["outcome"], row["provider"], row["provider_ref"]) == ({"next": "3ds"}, "stripe", "pi_1")


def test_two_effects_never_share_one_charge_of_the_provider(books):
    ids = books.accept(*orders(2))
    one, two = books.claim(*ids)
    books.settle(final(one, provider_ref="pi_1"))
    with pytest.raises(IntegrityError, match="effects_provider_ref"):
        books.settle(final(two, provider_ref="pi_1"))
    books.check()


def test_a_settlement_keeps_whatever_text_the_provider_sent(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    told = {"code": "card_declined", "message": "Ünïcode “quotes” \\ \n 日本 😀", "nested": {"a": [1, None, True]}}
    books.settle(final(attempt, State.FAILED, outcome=told))
    assert books.effect(effect_id)["outcome"] == told
