"""The outbox: what is due is taken once, in order, by whoever asks; and it comes due again until it is settled."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest

from service.core.state import State
from service.store import database, outbox
from service.store.glance import glance
from tests.store.answers import final, parked, waiting
from tests.store.books import ACTOR, order, orders
from tests.store.replays import replay

REDELIVERY = 105.0


def take(batch=500, redelivery=REDELIVERY):
    with database.transaction() as connection:
        return [row.effect_id for row in outbox.take(connection, batch, redelivery)]


def ask(function, *arguments, **named):
    with database.transaction() as connection:
        return function(connection, *arguments, **named)


# --- taking ----------------------------------------------------------------------------------------------------------


def test_w3_taking_pushes_the_row_ahead_so_that_a_relay_that_dies_only_delays_it(books):
    ids = books.accept(*orders(3))
    with database.transaction() as connection:
        taken = outbox.take(connection, 500, REDELIVERY)
    assert [(row.effect_id, row.kind, row.lane, row.deliveries, row.again) for row in taken] == [
        (effect_id, "charge", "charge", 1, False) for effect_id in ids
    ]
    assert take() == []
    row = books.duty(ids[0])
    assert row["road"] == "published"
    assert row["available_at"] > datetime.now(UTC) + timedelta(seconds=REDELIVERY - 10)
    books.make_due(ids[0])
    with database.transaction() as connection:
        [again] = outbox.take(connection, 500, REDELIVERY)
    assert (again.effect_id, again.deliveries, again.again) == (ids[0], 2, True)


def test_w3_a_relay_that_dies_before_its_commit_has_taken_nothing(books):
    ids = books.accept(*orders(3))
    with database.engine().connect() as connection:
        assert len(outbox.take(connection, 500, REDELIVERY)) == 3
        connection.rollback()
    assert take() == ids


def test_urgent_ones_go_first_and_then_the_oldest(books):
    asked = [order(f"k{i}", priority=priority) for i, priority in enumerate([0, 9, 0, 5, 9])]
    ids = books.accept(*asked)
    assert take() == [ids[1], ids[4], ids[3], ids[0], ids[2]]


def test_a_small_batch_takes_the_urgent_ones_of_a_long_backlog(books):
    ids = books.accept(*(order(f"k{i}", priority=i % 10) for i in range(50)))
    assert take(batch=5) == ids[9::10]


def test_what_is_not_due_is_not_taken(books):
    soon = datetime.now(UTC) + timedelta(hours=1)
    later, deferred, fresh = books.accept(order("eta", not_before=soon), order("deferred"), order("fresh"))
    [attempt] = books.claim(deferred)
    books.settle(waiting(attempt))
    assert take() == [fresh]
    books.make_due(later)
    books.make_due(deferred)
    assert sorted(take()) == sorted([later, deferred])


def test_what_was_published_in_vain_goes_before_retries_and_those_before_fresh_ones(books):
    lost, retried, fresh = books.accept(order("a"), order("b"), order("c"))
    books.run("update outbox set road = 'fresh' where effect_id = %s", lost)
    assert lost in take(batch=1)
    [attempt] = books.claim(retried)
    books.settle(waiting(attempt))
    books.make_due(lost)
    books.make_due(retried)
    assert [take(batch=1), take(batch=1), take(batch=1)] == [[lost], [retried], [fresh]]


def test_parked_and_settled_ones_are_never_taken(books):
    held, done = books.accept(order("held"), order("done"))
    one, two = sorted(books.claim(held, done), key=lambda a: [held, done].index(a.id))
    books.settle(parked(one), final(two))
    books.make_due(held)
    assert take() == []


def test_relays_side_by_side_never_take_the_same_row(books):
    ids = books.accept(*orders(400, priority=3))
    together = threading.Barrier(6)

    def relay(_: int):
        mine = []
        together.wait(20)
        while taken := take(batch=17):
            mine += taken
        return mine

    with ThreadPoolExecutor(6) as pool:
        taken = [effect_id for part in pool.map(relay, range(6)) for effect_id in part]
    assert len(taken) == len(set(taken)) == 400
    assert set(taken) == set(ids)
    assert books.one("select max(deliveries) from outbox") == 1


def test_a_row_that_another_relay_holds_is_skipped_and_not_waited_for(books):
    ids = books.accept(*orders(4))
    with database.engine().connect() as holding:
        assert [r.effect_id for r in outbox.take(holding, 2, REDELIVERY)] == ids[:2]
        assert take() == ids[2:]
        holding.rollback()
    assert take() == ids[:2]


# --- window, put back, next due --------------------------------------------------------------------------------------


def test_the_window_counts_what_is_published_and_not_due_again(books):
    ids = books.accept(*orders(5))
    assert ask(glance).in_flight == 0
    take(batch=3)
    assert ask(glance).in_flight == 3
    books.make_due(ids[0])
    assert ask(glance).in_flight == 2
    [attempt] = books.claim(ids[1])
    books.settle(final(attempt))
    assert ask(glance).in_flight == 1


def test_what_could_not_be_published_comes_due_again_soon(books):
    ids = books.accept(*orders(3))
    take()
    assert ask(outbox.put_back, ids[:2], after=7.0, error="x" * 900) == 2
    row = books.duty(ids[0])
    assert (row["road"], len(row["last_error"])) == ("later", 500)
    assert row["available_at"] <= datetime.now(UTC) + timedelta(seconds=8)
    books.make_due(ids[0])
    assert take() == [ids[0]]


def test_putting_back_leaves_alone_what_has_been_settled_or_retried_since(books):
    done, retried = books.accept(*orders(2))
    take()
    one, two = sorted(books.claim(done, retried), key=lambda a: [done, retried].index(a.id))
    books.settle(final(one), waiting(two))
    assert ask(outbox.put_back, [done, retried], after=0.0, error="away") == 0
    assert books.duty(retried)["last_error"] == "rate_limited"


def test_the_relay_knows_how_long_it_may_sleep(books):
    assert ask(outbox.seconds_until_due) is None
    [later] = books.accept(order("eta", not_before=datetime.now(UTC) + timedelta(hours=1)))
    assert 3500 < ask(outbox.seconds_until_due) <= 3600
    books.accept(order("fresh"))
    assert ask(outbox.seconds_until_due) <= 0
    take()
    assert 100 < ask(outbox.seconds_until_due) <= REDELIVERY
    books.make_due(later)
    assert ask(outbox.seconds_until_due) <= 0


# --- what people see -------------------------------------------------------------------------------------------------


def test_stats_of_an_empty_outbox_are_zeros_without_ages(books):  # noqa: ARG001 - the database
    empty = ask(outbox.stats)
    assert {value for name, value in empty.items() if not name.startswith("oldest")} == {0}
    assert {value for name, value in empty.items() if name.startswith("oldest")} == {None}


def test_stats_count_by_road_and_state_and_tell_the_ages(books):
    soon = datetime.now(UTC) + timedelta(hours=1)
    ids = books.accept(*orders(5), order("eta", not_before=soon))
    attempts = {a.id: a for a in books.claim(*ids[:4])}
    books.run("update outbox set available_at = now() - interval '100 s' where effect_id = %s", ids[4])
    books.settle(
        waiting(attempts[ids[0]], State.UNKNOWN, "unknown"),
        parked(attempts[ids[1]]),
        waiting(attempts[ids[2]], State.AWAITING, "awaiting"),
    )
    now = ask(outbox.stats)
    counts = {name: now[name] for name in ("fresh", "later", "published", "parked", "unknown", "awaiting", "executing")}
    assert counts == {
        "fresh": 2, "later": 3, "published": 0, "parked": 1, "unknown": 1, "awaiting": 1, "executing": 1,
    }  # fmt: skip
    assert 95 < now["oldest_unpublished_seconds"] < 130
    assert 0 <= now["oldest_unknown_seconds"] < 30
    assert 0 <= now["oldest_parked_seconds"] < 30


def test_rows_are_listed_by_what_a_person_asks_for(books):
    ids = books.accept(order("a"), order("b", tenant="shop"), order("c", kind="email"))
    attempts = {a.id: a for a in books.claim(ids[0])}
    books.settle(parked(attempts[ids[0]]))

    def listed(limit=10, **filters):
        return [row["effect_id"] for row in ask(outbox.rows, filters, limit=limit)]

    assert listed() == ids
    assert listed(limit=2) == ids[:2]
    assert listed(road="parked") == listed(state="parked") == [ids[0]]
    assert listed(tenant="shop") == listed(effect_id=ids[1]) == [ids[1]]
    assert listed(kind="email", road=None) == [ids[2]]
    assert listed(kind="email", road="parked") == []
    [row] = ask(outbox.rows, {"road": "parked"}, limit=1)
    assert (row["parked_reason"], row["dedupe_key"], row["amount"]) == ("echo_mismatch", "a", 4200)
    assert "request" not in row


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_person_replays_a_parked_effect_under_its_old_doubt_and_the_journal_says_who_and_why(books):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    books.settle(parked(attempt))
    assert replay(effect_id) == [effect_id]
    row, duty = books.effect(effect_id), books.duty(effect_id)
    assert (row["state"], row["in_doubt"], row["attempt"]) == ("pending", True, 1)
    assert (duty["road"], duty["parked_at"], duty["parked_reason"]) == ("later", None, None)
    [fact] = books.rows("select actor, evidence from journal where fact = 'replayed'")
    assert fact == {"actor": "ada", "evidence": {"reason": "provider is back", "was": "parked", "operation": ANY}}
    assert take() == [effect_id]
    [again] = books.claim(effect_id)
    assert (again.number, again.in_doubt) == (2, True)


@pytest.mark.parametrize("state", [State.PENDING, State.UNKNOWN, State.AWAITING])
def test_a_person_can_cut_a_wait_short(books, state):
    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    fact = "deferred" if state is State.PENDING else state.value
    books.settle(waiting(attempt, state, fact))
    assert take() == []
    assert replay(effect_id) == [effect_id]
    assert books.effect(effect_id)["state"] == state
    assert take() == [effect_id]


def test_replay_skips_the_settled_the_foreign_and_those_a_live_attempt_holds(books):
    done, live, lost = books.accept(*orders(3))
    attempts = {a.id: a for a in books.claim(done, live, lost)}
    books.settle(final(attempts[done]))
    books.end_lease(lost)
    before = books.effect(done), books.effect(live)
    assert replay(done, live, lost, order().id) == [lost]
    assert (books.effect(done), books.effect(live)) == before
    books.claim(lost)


def test_replaying_twice_at_once_is_harmless(books):
    ids = books.accept(*orders(20))
    books.settle(*(parked(attempt) for attempt in books.claim(*ids)))
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda turn: replay(*ids[:: 1 - 2 * (turn % 2)]), range(4)))
    assert {effect_id for part in done for effect_id in part} == set(ids)
    assert sorted(take()) == sorted(ids)
    assert take() == []


def test_facts_are_told_in_order(books):
    from service.store import journal

    [effect_id] = books.accept()
    books.claim(effect_id)
    facts = ask(journal.of, effect_id)
    assert [(fact["fact"], fact["attempt"], fact["actor"]) for fact in facts] == [
        ("accepted", 0, ACTOR),
        ("claimed", 1, ACTOR),
    ]
    assert facts[0]["at"] <= facts[1]["at"]


# --- finance ---------------------------------------------------------------------------------------------------------


def test_finance_reads_charges_and_emails_in_typed_columns_without_addresses(books):
    paid, declined, mail = books.accept(order("paid"), order("declined", amount=100), order("mail", kind="email"))
    attempts = {a.id: a for a in books.claim(paid, declined, mail)}
    books.settle(
        final(attempts[paid], provider_ref="pi_1"),
        final(attempts[declined], State.FAILED, outcome={"code": "card_declined", "decline_code": "lost_card"}),
        final(attempts[mail], provider="smtp", provider_ref="<1@x>", outcome={"possible_duplicate": True}),
    )
    one, two = books.rows("select * from charges order by created_at, id")
    assert (one["payment_intent"], one["charge"], one["amount"], one["currency"]) == ("pi_1", "ch_1", 4200, "eur")
    assert (two["failure_code"], two["decline_code"], two["state"]) == ("card_declined", "lost_card", "failed")
    [letter] = books.rows("select * from emails")
    assert (letter["possible_duplicate"], letter["provider"]) == (True, "smtp")
    assert not {"to", "address", "request"} & set(letter)


def test_the_payment_intent_shows_before_the_charge_is_settled(books):
    from service.store import attempts

    [effect_id] = books.accept()
    [attempt] = books.claim(effect_id)
    ask(attempts.record, [(attempt, {"payment_intent": "pi_1"})], 90.0, actor=ACTOR)
    assert books.one("select payment_intent from charges") == "pi_1"
