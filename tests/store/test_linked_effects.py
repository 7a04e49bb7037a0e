"""Never a refund before its charge succeeded: what acts upon a charge waits, visibly and at no cost, and then begins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest
from sqlalchemy.orm import Session

import tasks
from service.core.errors import ValidationError
from service.core.outcome import Failed
from service.core.state import State
from service.engine.accept import accept
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.settings import Settings
from service.store import attempts, database, links, outbox
from service.store.attempts import Limits
from tests.store.answers import final, parked, waiting
from tests.store.books import ACTOR, LIMITS, order
from tests.store.linked import bring, deliver, hold_back, pair, publish, stats, upon
from tests.store.replays import replay
from tests.store.script import ScriptedProvider, succeed

WAIT_SECONDS = 20
NOT_FINAL = ("pending", "executing", "unknown", "deferred", "processing", "held", "parked")
FINAL = ("succeeded", "failed")
WAITS_FOR_A_ROW = (
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
)


# --- when it may begin -----------------------------------------------------------------------------------------------


def test_a_refund_does_not_begin_before_its_charge_is_final(books):
    for state in NOT_FINAL:
        charge, refund = pair(books)
        bring(books, charge, state)
        assert books.claim(refund) == [], state
        assert books.effect(refund)["attempt"] == 0, state
        assert books.facts(refund) == ["accepted"], state


def test_a_refund_begins_once_its_charge_is_final_and_knows_how_it_ended(books):
    for state in FINAL:
        charge, refund = pair(books)
        bring(books, charge, state)
        [attempt] = books.claim(refund)
        assert (attempt.concerned.id, attempt.concerned.state) == (charge, State(state))
        assert attempt.concerned.ref == (f"pi_{charge}" if state == "succeeded" else None)


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_a_capture_and_a_cancel_begin_once_the_money_is_held_or_the_charge_is_final(books, kind):
    for state in (*NOT_FINAL, *FINAL):
        charge, other = pair(books, kind)
        bring(books, charge, state)
        assert [a.id for a in books.claim(other)] == ([other] if state in ("held", *FINAL) else []), state


def test_a_charge_and_its_refund_in_one_transaction_are_begun_one_after_the_other(books):
    with Session(database.engine()) as session, session.begin():
        one = order()
        accept(session, [one], actor=ACTOR)
        [other] = accept(session, [upon(one.id)], actor=ACTOR)
    refund = other.id
    assert sorted(publish()) == sorted([one.id, refund])
    [attempt] = books.claim(refund, one.id)
    assert attempt.id == one.id
    books.settle(final(attempt))
    assert [a.id for a in books.claim(refund, one.id)] == [refund]


def test_what_has_begun_goes_on_whatever_becomes_of_the_charge(books):
    """A capture whose answer was lost sends its key again while the charge is being asked after, or is parked."""
    charge, capture = pair(books, "capture")
    bring(books, charge, "held")
    [attempt] = books.claim(capture)
    books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    books.make_due(charge)
    [asked] = books.claim(charge)
    books.make_due(capture)
    [again] = books.claim(capture)
    assert (again.prior, again.concerned.state, again.concerned.ref) == (
        State.UNKNOWN, State.EXECUTING, f"pi_{charge}",
    )  # fmt: skip
    books.settle(parked(asked), waiting(again, State.UNKNOWN, "unknown"))
    books.make_due(capture)
    assert len(books.claim(capture)) == 1


# --- while it waits --------------------------------------------------------------------------------------------------


def test_a_hundred_deliveries_of_a_waiting_refund_begin_nothing_and_spend_nothing(books):
    charge, refund = pair(books)
    bring(books, charge, "unknown")
    publish()
    with ThreadPoolExecutor(8) as crowd:
        begun = list(crowd.map(lambda _: deliver(books, refund), range(100)))
    assert begun == [[]] * 100
    effect, duty = books.effect(refund), books.duty(refund)
    assert (effect["state"], effect["attempt"], effect["first_sent_at"]) == ("pending", 0, None)
    assert (duty["road"], duty["deliveries"]) == ("later", 0)
    books.make_due(charge)
    bring(books, charge, "succeeded")
    [attempt] = books.claim(refund)
    assert (attempt.number, attempt.tries) == (1, 1)
    assert attempt.waited_seconds < WAIT_SECONDS


def test_a_waiting_refund_says_why_and_is_not_counted_as_late_or_unserved(books):
    charge, refund = pair(books)
    bring(books, charge, "parked")
    books.run("update outbox set created_at = now() - interval '1 day'")
    for _ in range(4):
        books.make_due(refund)
        assert refund in publish()
        assert deliver(books, refund) == []
    books.make_due(refund)
    now = stats()
    assert now["unclaimed"] == 0
    assert now["oldest_unpublished_seconds"] < WAIT_SECONDS
    with database.statement() as connection:
        [row] = outbox.rows(connection, {"effect_id": refund}, limit=1)
    assert (row["state"], row["road"], row["parked_at"]) == ("pending", "later", None)
    assert row["last_error"] == "waits for the effect it concerns"


def test_only_what_waits_is_held_back(books):
    charge, refund = pair(books)
    assert hold_back(refund) == []  # a duplicate that came before the relay: the row is still to be published
    assert books.duty(refund)["road"] == "fresh"
    publish()
    assert hold_back(charge, refund) == [refund]
    assert hold_back(refund) == []
    bring(books, charge, "succeeded")
    publish()
    assert hold_back(refund) == []  # it may begin: the message is on its way
    assert books.duty(refund)["road"] == "published"


def test_a_replay_of_a_waiting_refund_does_not_break_the_order_nor_start_its_patience(books):
    charge, refund = pair(books)
    bring(books, charge, "parked")
    publish()
    deliver(books, refund)
    assert replay(refund) == [refund]
    assert publish() == [refund]
    assert deliver(books, refund) == []
    assert books.facts(refund) == ["accepted", "replayed"]
    impatient = Limits(LIMITS.lease, LIMITS.budget, age_limit=0.0)
    assert books.claim(refund, limits=impatient) == []
    with database.statement() as connection:
        assert attempts.park_spent(connection, [refund], impatient, actor=ACTOR) == []
    replay(charge)
    bring(books, charge, "succeeded")
    [attempt] = books.claim(refund, limits=impatient)
    assert (attempt.number, attempt.tries) == (1, 1)


# --- when the charge is ready ----------------------------------------------------------------------------------------


def test_the_end_of_the_charge_wakes_its_refund_at_once(books):
    for state in FINAL:
        charge, refund = pair(books)
        publish()
        deliver(books, refund)
        assert publish() == []
        bring(books, charge, state)
        assert publish() == [refund], state
        deliver(books, refund)


def test_a_hold_wakes_its_capture_and_not_its_refund(books):
    charge, capture = pair(books, "capture")
    [refund] = books.accept(upon(charge))
    publish()
    deliver(books, capture, refund)
    bring(books, charge, "held")
    assert publish() == [capture]


def test_a_charge_that_is_not_ready_wakes_nobody(books):
    for state in ("deferred", "unknown", "processing", "parked"):
        charge, refund = pair(books)
        publish()
        deliver(books, refund)
        before = books.duty(refund)
        bring(books, charge, state)
        assert books.duty(refund) == before, state


def test_a_charge_that_leaves_the_parking_place_by_success_wakes_its_refund(books):
    charge, refund = pair(books)
    bring(books, charge, "parked")
    publish()
    deliver(books, refund)
    replay(charge)
    assert books.claim(refund) == []
    bring(books, charge, "succeeded")
    assert publish() == [refund]


def test_a_parked_capture_is_not_woken(books):
    charge, capture = pair(books, "capture")
    bring(books, charge, "held")
    [attempt] = books.claim(capture)
    books.settle(parked(attempt))
    before = books.duty(capture)
    books.make_due(charge)
    bring(books, charge, "succeeded")
    assert books.duty(capture) == before
    assert books.effect(capture)["state"] == "parked"


def test_a_scheduled_refund_is_not_woken_before_its_time(books):
    [charge] = books.accept()
    [refund] = books.accept(upon(charge, countdown=3600))
    bring(books, charge, "succeeded")
    assert publish() == []
    assert books.claim(refund) == []
    books.make_due(refund)
    assert publish() == [refund]
    assert len(books.claim(refund)) == 1


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_a_charge_that_waits_is_asked_after_at_once_when_it_was_captured_or_cancelled(books, kind):
    charge, other = pair(books, kind)
    bring(books, charge, "held")
    assert books.claim(charge) == []
    [attempt] = books.claim(other)
    books.settle(final(attempt, provider_ref=f"ch_{other}"))
    assert publish() == [charge]
    [asked] = books.claim(charge)
    assert asked.prior is State.AWAITING


# --- every order of events -------------------------------------------------------------------------------------------


def orders_of_events():
    """Every order in which two deliveries, the charge's claim and end, and a relay can come."""
    found = sorted(set(permutations(["deliver", "deliver", "claim", "settle", "relay"])))
    return [steps for steps in found if steps.index("claim") < steps.index("settle")]


def test_in_any_order_of_events_the_refund_begins_after_its_charge_has_ended_and_is_then_due(books):
    assert len(orders_of_events()) == 30
    for steps in orders_of_events():
        charge, refund = pair(books)
        publish()
        attempt, ended, begun = None, False, []
        for step in steps:
            if step == "deliver":
                begun += deliver(books, refund)
                assert ended or not begun, steps
            elif step == "claim":
                [attempt] = books.claim(charge)
            elif step == "settle":
                books.settle(final(attempt))
                ended = True
            else:
                publish()
        if not begun:  # due now, or its message is still on its way
            assert refund in publish() or books.duty(refund)["road"] == "published", steps
            begun = deliver(books, refund)
        assert begun == [refund], steps


def test_a_charge_that_ends_while_its_refund_is_being_held_back_still_wakes_it(books):
    """Both want the outbox row: whoever comes second knows that the charge has ended, or leaves the row alone."""
    charge, refund = pair(books)
    publish()
    [attempt] = books.claim(charge)
    with database.engine().connect() as slow, ThreadPoolExecutor(1) as other:
        assert links.hold_back(slow, [refund], seconds=60.0) == [refund]  # looked while the charge was executing
        settling = other.submit(books.settle, final(attempt))
        until(lambda: books.one(WAITS_FOR_A_ROW) == 1)
        slow.commit()
        assert settling.result(WAIT_SECONDS) == {charge}
    assert publish() == [refund]


def test_a_worker_that_looked_before_the_end_does_not_hold_back_what_was_woken(books):
    charge, refund = pair(books)
    publish()
    [attempt] = books.claim(charge)
    with database.engine().connect() as ending, ThreadPoolExecutor(1) as other:
        ending.exec_driver_sql("select 1 from outbox where effect_id = %s for update", (refund,))
        late = other.submit(hold_back, refund)
        until(lambda: books.one(WAITS_FOR_A_ROW) == 1)  # it has looked, and waits for the row
        attempts.settle(ending, [final(attempt)], actor=ACTOR)
        ending.commit()
        assert late.result(WAIT_SECONDS) == []
    assert publish() == [refund]


def test_many_charges_and_refunds_executed_at_once_keep_their_order(books):
    """Two kinds on eight threads, each message four times: no refund is performed before its charge is settled."""
    executor = Executor(Settings(slots=8), actor="worker")
    early, pairs = [], [pair(books) for _ in range(12)]
    charges, refunds = [c for c, _ in pairs], [r for _, r in pairs]

    def pay(attempt, lease):
        if attempt.id == charges[0]:
            return Failed("card_declined", "no")
        return succeed(attempt, lease)

    def give_back(attempt, lease):
        with database.statement() as connection:
            state = connection.exec_driver_sql(
                "select state from effects where id = %s", (attempt.request["charge"],)
            ).scalar_one()
        if state not in FINAL or state != attempt.concerned.state:
            early.append(attempt.id)
        return succeed(attempt, lease) if state == "succeeded" else Failed("charge_failed", "the charge failed")

    paying, giving = ScriptedProvider(usual=pay), ScriptedProvider(usual=give_back)
    publish()
    jobs = [(Kind("refund", lambda: giving), refunds), (Kind("charge", lambda: paying), charges)] * 4
    with ThreadPoolExecutor(8) as crowd:
        list(crowd.map(lambda job: executor.run(*job), jobs))
    executor.run(Kind("refund", lambda: giving), publish())
    assert early == []
    assert sorted(a.id for a in giving.seen) == sorted(refunds)
    assert [books.effect(r)["state"] for r in refunds] == ["failed"] + ["succeeded"] * 11
    assert books.count("outbox") == 0


def test_a_message_of_another_kind_begins_nothing(books):
    """Whoever can write to the broker must not be able to cancel what was to be captured."""
    charge, capture = pair(books, "capture")
    bring(books, charge, "held")
    provider = ScriptedProvider()
    report = Executor(Settings(), actor="worker").run(Kind("cancel", lambda: provider), [capture, charge])
    assert (report.claimed, provider.seen) == (0, [])
    assert books.facts(capture) == ["accepted"]


# --- accepting -------------------------------------------------------------------------------------------------------


def test_a_caller_whose_transaction_holds_a_refund_stops_neither_its_charge_nor_a_replay(books):
    [charge] = books.accept()
    with Session(database.engine()) as session, session.begin(), ThreadPoolExecutor(1) as worker:
        accept(session, [upon(charge)], actor=ACTOR)
        [attempt] = worker.submit(books.claim, charge).result(WAIT_SECONDS)
        worker.submit(books.settle, parked(attempt)).result(WAIT_SECONDS)
        assert worker.submit(replay, charge).result(WAIT_SECONDS) == [charge]
    bring(books, charge, "succeeded")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"charge": "01890000-0000-7000-8000-000000000000"}, "charge"),
        ({"tenant": "shop"}, "charge"),
        ({"email": True}, "charge"),
        ({"currency": "usd"}, "currency"),
        ({"amount": 4201}, "amount"),
    ],
)
def test_what_does_not_fit_the_charge_is_refused_by_name_and_writes_nothing(books, change, field):
    [charge, letter] = books.accept(order(), order("letter", kind="email"))
    request = {"charge": letter if "email" in change else charge, "amount": 4200, "currency": "eur"}
    request |= {name: value for name, value in change.items() if name in request}
    options = {"tenant": change["tenant"]} if "tenant" in change else {}
    with pytest.raises(ValidationError) as caught:
        tasks.refund.apply_async(kwargs=request, dedupe_key="r", **options)
    assert caught.value.field == field
    fine = {"charge": charge, "amount": 1, "currency": "eur"}
    with pytest.raises(ValidationError):
        tasks.refund.apply_many([
            {"kwargs": fine, "dedupe_key": "a"}, {"kwargs": request, "dedupe_key": "b", **options},
        ])  # fmt: skip
    assert books.count("effects") == 2


def test_several_partial_refunds_of_one_charge_are_several_effects(books):
    charge, _ = pair(books)
    part = {"charge": charge, "amount": 1000, "currency": "eur"}
    first = tasks.refund.apply_async(kwargs=part, dedupe_key="part:1")
    second = tasks.refund.apply_async(kwargs={**part, "charge": charge.upper()}, dedupe_key="part:2")
    again = tasks.refund.apply_async(kwargs={**part, "charge": charge.upper()}, dedupe_key="part:1")
    assert (first.created, second.created, again.created) == (True, True, False)
    assert (again.id, second.id != first.id) == (first.id, True)


def until(condition) -> None:
    """Wait for the condition; fail when it does not come."""
    pause = threading.Event()
    for _ in range(100 * WAIT_SECONDS):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("the condition did not come true in time")
