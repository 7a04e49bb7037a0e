"""Operations: a frozen set, carried out by whoever drives, once, at its pace, and stopped when it goes badly."""

from __future__ import annotations

import pytest

from service.core.errors import OperationNotFound, ValidationError
from service.core.operation import Pace, Selection, Verb
from service.core.state import State
from service.engine import drive, operations
from service.store import outbox
from service.store.database import statement
from tests.store.answers import final, waiting
from tests.store.answers import parked as stuck
from tests.store.books import Books, orders

ME = {"actor": "me@host", "door": "cli"}


def accepted(books: Books, count: int) -> list[str]:
    first = books.count("effects")
    return books.accept(*orders(first + count)[first:])


def parked(books: Books, count: int, reason: str = "attempt_budget") -> list[str]:
    ids = accepted(books, count)
    for attempt in books.claim(*ids):
        books.settle(stuck(attempt, reason))
    return ids


def started(selection: Selection, pace: Pace | None = None, verb: Verb = Verb.REPLAY) -> str:
    planned = operations.plan(verb, selection, actor="me@host")
    operations.start(planned.id, reason="INC-42", pace=pace, **ME)
    return planned.id


def roads(books: Books) -> list[str]:
    return [row["road"] for row in books.rows("select road from outbox order by effect_id")]


def settle_all(books: Books, ids: list[str], state: State = State.SUCCEEDED) -> None:
    for attempt in books.claim(*ids):
        books.settle(
            final(attempt, state) if state is State.SUCCEEDED else final(attempt, state, outcome={"code": "x"})
        )


def test_a_plan_freezes_a_set_and_touches_none_of_it(books):
    ids = parked(books, 3)
    plan = operations.plan(Verb.REPLAY, Selection(state="parked"), actor="me@host")
    assert plan.ids == tuple(ids)
    assert (plan.eligible, plan.money, plan.more) == (3, {"eur": 3 * 4200}, False)
    assert roads(books) == ["parked"] * 3
    assert operations.show(plan.id).state == "planned"


def test_exactly_the_frozen_set_is_replayed_with_the_reason_in_the_journal(books):
    ids = parked(books, 3)
    one = started(Selection(state="parked"))
    parked(books, 1)
    assert drive.run_once().effects == 3
    assert roads(books) == ["later", "later", "later", "parked"]
    facts = books.rows("select evidence from journal where fact = 'replayed'")
    assert [row["evidence"] for row in facts] == [{"reason": "INC-42", "was": "parked", "operation": one}] * 3
    assert operations.show(one).done == 3
    settle_all(books, ids)
    drive.run_once()
    ended = operations.show(one)
    assert (ended.state, ended.ended) == ("done", {"succeeded": 3})


def test_what_changed_since_the_plan_is_skipped_and_says_why(books):
    first, second, third = parked(books, 3)
    plan = operations.plan(Verb.REPLAY, Selection(ids=(first, second, third)), actor="me@host")
    books.run("update outbox set road = 'later', parked_at = null, parked_reason = null where effect_id = %s", first)
    books.run("update effects set state = 'pending' where id = %s", first)
    settle_all(books, [first])
    other = started(Selection(ids=(second,)))
    drive.run_once()
    operations.start(plan.id, reason="INC-42", **ME)
    drive.run_once()
    found = operations.show(plan.id)
    assert found.done == 1
    assert found.skipped == {"settled: succeeded": 1, "changed since the plan": 1}
    assert operations.show(other).done == 1


def test_a_plan_is_cut_at_its_limit_and_says_so(books):
    ids = parked(books, 3)
    by_state = operations.plan(Verb.REPLAY, Selection(state="parked", limit=2), actor="me")
    by_id = operations.plan(Verb.REPLAY, Selection(ids=tuple(ids), limit=2), actor="me")
    assert (by_state.ids, by_state.more, by_id.ids, by_id.more) == (tuple(ids[:2]), True, tuple(ids[:2]), True)


@pytest.mark.usefixtures("books")
def test_nothing_selected_is_never_everything_and_wrong_selectors_are_named():
    for wrong, field in (
        (Selection(), "selection"),
        (Selection(tenant="default"), "selection"),
        (Selection(state="succeeded"), "state"),
        (Selection(state="parked", limit=0), "limit"),
        (Selection(state="parked", limit=10_001), "limit"),
    ):
        with pytest.raises(ValidationError) as caught:
            operations.plan(Verb.REPLAY, wrong, actor="me")
        assert caught.value.field == field


def test_the_plan_says_what_is_not_eligible_and_why(books):
    settled, live, fine = accepted(books, 3)
    settle_all(books, [settled])
    books.claim(live)
    plan = operations.plan(
        Verb.REPLAY, Selection(ids=(settled, live, fine, fine, "019a2f6e-0000-7000-8000-00000000dead")), actor="me"
    )
    assert plan.ids == (fine,)
    assert set(plan.skipped) == {"settled: succeeded", "an attempt is at work", "no such effect"}


def test_a_fourth_replay_of_one_effect_needs_to_be_meant(books):
    [one] = parked(books, 1)
    for _ in range(3):
        started(Selection(ids=(one,)))
        drive.run_once()
    plan = operations.plan(Verb.REPLAY, Selection(ids=(one,)), actor="me")
    assert (plan.eligible, list(plan.skipped)) == (0, ["replayed 3 times before"])
    assert operations.plan(Verb.REPLAY, Selection(ids=(one,)), actor="me", force=True).eligible == 1


def test_an_operation_starts_once_with_a_reason_before_its_plan_expires_and_for_its_tenant_only(books):
    parked(books, 1)
    plan = operations.plan(Verb.REPLAY, Selection(state="parked", tenant="default"), actor="me")
    with pytest.raises(ValidationError, match="reason"):
        operations.start(plan.id, reason=" ", **ME)
    with pytest.raises(OperationNotFound):
        operations.start(plan.id, reason="x", tenant="another", **ME)
    operations.start(plan.id, reason="x", **ME)
    with pytest.raises(ValidationError, match="running already"):
        operations.start(plan.id, reason="x", **ME)
    old = operations.plan(Verb.REPLAY, Selection(state="parked"), actor="me")
    books.run("update operations set expires_at = now() - interval '1 second' where id = %s", old.id)
    with pytest.raises(ValidationError, match="expired"):
        operations.start(old.id, reason="x", **ME)


def test_one_commit_takes_a_batch_so_that_a_pause_stops_within_it(books):
    parked(books, 5)
    one = started(Selection(state="parked"), Pace(batch=2))
    for done in (2, 4):
        drive.run_once()
        assert operations.show(one).done == done
    operations.pause(one, **ME)
    drive.run_once()
    assert operations.show(one).done == 4
    plan = operations.plan(Verb.REPLAY, Selection(state="parked"), actor="me")
    for batch in (0, operations.BATCH_MAX + 1):
        with pytest.raises(ValidationError, match="batch is 1 to"):
            operations.start(plan.id, reason="x", pace=Pace(batch=batch), **ME)


def test_canaries_go_first_and_the_others_wait_until_they_have_succeeded(books):
    ids = parked(books, 5)
    one = started(Selection(state="parked"), Pace(canary=2))
    drive.run_once()
    drive.run_once()
    assert operations.show(one).done == 2
    settle_all(books, ids[:2])
    drive.run_once()
    assert operations.show(one).done == 5


def test_a_canary_that_does_not_succeed_stops_the_operation(books):
    ids = parked(books, 5)
    one = started(Selection(state="parked"), Pace(canary=2))
    drive.run_once()
    settle_all(books, ids[:1], State.FAILED)
    drive.run_once()
    stopped = operations.show(one)
    assert (stopped.state, stopped.done, stopped.waiting) == ("stopped", 2, 3)
    assert "did not succeed" in str(stopped.stop_reason)
    assert roads(books)[-3:] == ["parked"] * 3


def test_a_canary_that_is_skipped_proves_nothing_the_next_one_takes_its_place(books):
    ids = parked(books, 3)
    plan = operations.plan(Verb.REPLAY, Selection(ids=tuple(ids)), actor="me@host")
    started(Selection(ids=(ids[0],)))
    drive.run_once()  # it has changed since the plan
    operations.start(plan.id, reason="INC-42", pace=Pace(canary=1), **ME)
    for _ in range(3):
        drive.run_once()
    found = operations.show(plan.id)
    assert (found.done, found.waiting, sum(found.skipped.values())) == (1, 1, 1)
    settle_all(books, [ids[1]])
    drive.run_once()
    assert operations.show(plan.id).done == 2


def test_an_effect_that_is_unknown_again_has_come_to_rest_and_one_nobody_has_tried_has_not(books):
    one, two = accepted(books, 2)
    for attempt in books.claim(one, two):
        books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    id_ = started(Selection(state="unknown"), Pace(failures_max=0))
    drive.run_once()
    drive.run_once()
    assert operations.show(id_).ended == {"under way": 2}
    [attempt] = books.claim(one)
    books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    drive.run_once()
    found = operations.show(id_)
    assert (found.state, found.ended) == ("stopped", {"unknown": 1, "under way": 1})


def test_more_failures_than_allowed_stop_the_operation(books):
    ids = parked(books, 150)
    one = started(Selection(state="parked"), Pace(failures_max=1))
    drive.run_once()
    settle_all(books, ids[:2], State.FAILED)
    drive.run_once()
    assert operations.show(one).state == "stopped"


def test_the_pace_holds_over_relays_and_a_pause_is_not_made_up_for(books):
    parked(books, 30)
    one = started(Selection(state="parked"), Pace(per_second=5))
    books.run("update operations set paced_at = clock_timestamp() - interval '1 second'")
    assert drive.run_once().effects in (5, 6)
    assert drive.run_once().effects in (0, 1)
    operations.pause(one, **ME)
    assert drive.run_once().operations == 0
    operations.resume(one, **ME)
    books.run("update operations set paced_at = clock_timestamp() - interval '1 hour'")
    assert drive.run_once().effects == 5, "an hour without relays is not an hour's worth at once"


def test_pause_resume_and_cancel_are_a_persons_and_stand_in_the_operators_log(books):
    parked(books, 2)
    one = started(Selection(state="parked"))
    operations.pause(one, reason="wait", **ME)
    drive.run_once()
    assert roads(books) == ["parked"] * 2
    with pytest.raises(ValidationError, match="cannot become paused"):
        operations.pause(one, **ME)
    operations.resume(one, **ME)
    assert operations.cancel(one, reason="wrong set", **ME).stop_reason == "wrong set"
    drive.run_once()
    assert roads(books) == ["parked"] * 2
    log = books.rows("select verb, actor, door, reason from actions order by id")
    assert [row["verb"] for row in log] == ["start", "paused", "running", "cancelled"]
    assert {row["actor"] for row in log} == {"me@host"}


def test_what_a_person_has_parked_is_held_until_a_person_lifts_it(books):
    one, two = accepted(books, 2)
    started(Selection(ids=(one,)), verb=Verb.PARK)
    drive.run_once()
    assert [row["state"] for row in books.rows("select state from effects order by id")] == ["parked", "pending"]
    assert books.claim(one) == []
    assert operations.plan(Verb.PARK, Selection(ids=(one,)), actor="me").skipped == {"parked already": (one,)}
    assert operations.plan(Verb.UNPARK, Selection(ids=(two,)), actor="me").skipped == {"pending, not parked": (two,)}
    started(Selection(ids=(one,)), verb=Verb.UNPARK)
    drive.run_once()
    assert books.claim(one)
    drive.run_once()
    assert [known.verb for known in operations.listed(state="done")] == ["unpark", "park"]


def test_an_unpark_does_not_lift_what_the_budget_has_parked(books):
    ids = parked(books, 1)
    plan = operations.plan(Verb.UNPARK, Selection(ids=tuple(ids)), actor="me")
    assert list(plan.skipped) == ["parked for attempt_budget: replay it"]


def test_replay_brings_back_what_a_person_has_parked_too(books):
    [one] = accepted(books, 1)
    started(Selection(ids=(one,)), verb=Verb.PARK)
    drive.run_once()
    started(Selection(ids=(one,)))
    drive.run_once()
    with statement() as connection:
        assert [row.effect_id for row in outbox.take(connection, 10, 60.0)] == [one]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ({"kind": "charge", "state": "stuck"}, 2),
        ({"kind": "email", "state": "stuck"}, 0),
        ({"lane": "charge"}, 3),
        ({"key_prefix": "order:1:"}, 1),
        ({"error_like": "BUDGET"}, 2),
        ({"error_like": "100%"}, 0),
        ({"older_than_seconds": 0.0}, 3),
        ({"older_than_seconds": 3600.0}, 0),
        ({"state": "parked", "tenant": "another"}, 0),
        ({"ref": "pi_none"}, 0),
    ],
)
def test_each_selector_narrows(books, selector, found):
    parked(books, 2)
    accepted(books, 1)
    assert operations.plan(Verb.REPLAY, Selection(**selector), actor="me").eligible == found


def test_the_effects_of_an_operation_can_be_selected_again(books):
    ids = parked(books, 2)
    one = started(Selection(ids=(ids[0],)))
    drive.run_once()
    assert operations.plan(Verb.REPLAY, Selection(operation=one), actor="me").ids == (ids[0],)
    assert [item["effect_id"] for item in operations.items(one)] == [ids[0]]
