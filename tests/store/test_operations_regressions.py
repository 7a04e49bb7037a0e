"""What the machine of operations has found, each as a story of its own."""

from __future__ import annotations

from service.core.operation import Pace, Selection, Verb
from service.core.state import State
from service.engine import drive, operations
from tests.store.books import order

PERSON = {"actor": "ada@host", "door": "cli"}


def test_a_park_that_finds_an_effect_changed_skips_it_and_ends(books):
    """Found by the machine: the skipped item was told how it ended, the schema refused, and no relay got past it."""
    [one] = books.accept(order())
    plan = operations.plan(Verb.PARK, Selection(ids=(one,)), actor="ada@host")
    books.claim(one)
    operations.start(plan.id, reason="INC-42", pace=Pace(), **PERSON)
    for _ in range(2):  # the verdict, then the end
        drive.run_once()
    found = operations.show(plan.id)
    assert (found.state, found.skipped, found.ended) == ("done", {"an attempt is at work": 1}, {})


def test_a_replayed_effect_whose_lease_is_over_stands_as_unknown_until_somebody_claims_it(books):
    """Found by the machine: it stood as executing, by nobody, and the journal's last word was `replayed` (I8)."""
    [one] = books.accept(order())
    books.claim(one)
    books.end_lease(one)
    plan = operations.plan(Verb.REPLAY, Selection(ids=(one,)), actor="ada@host")
    operations.start(plan.id, reason="INC-42", pace=Pace(), **PERSON)
    drive.run_once()
    assert (books.effect(one)["state"], books.effect(one)["in_doubt"]) == ("unknown", True)
    assert books.facts(one) == ["accepted", "claimed", "leased_out", "replayed"]
    books.check()
    [attempt] = books.claim(one)
    assert (attempt.prior, attempt.in_doubt) == (State.UNKNOWN, True)


def test_an_operation_that_the_schema_refuses_ends_and_the_others_go_on(books):
    ids = books.accept(order("one"), order("two"))
    plans = [operations.plan(Verb.PARK, Selection(ids=(one,)), actor="ada@host") for one in ids]
    for plan in plans:
        operations.start(plan.id, reason="INC-42", pace=Pace(), **PERSON)
    books.run(
        f"alter table operation_items add constraint broken check (effect_id <> '{ids[0]}' or result = 'waiting')"
    )
    drive.run_once()
    refused, other = (operations.show(plan.id) for plan in plans)
    assert (refused.state, other.done) == ("stopped", 1)
    assert "refused" in str(refused.stop_reason)
    assert [books.effect(one)["state"] for one in ids] == ["pending", "parked"]
