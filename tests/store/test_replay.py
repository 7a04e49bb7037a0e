"""Replay: first a plan that writes nothing, then exactly that set, with a person's name and reason in the journal."""

from __future__ import annotations

import pytest

from service.core.errors import ValidationError
from service.core.state import State
from service.engine import replay
from service.engine.replay import Plan, Selection
from service.store import health, schema
from service.store.database import statement
from tests.store.answers import final, parked, waiting
from tests.store.books import order, orders


def stuck(books, count=3):
    """Parked effects, oldest first."""
    ids = books.accept(*orders(count))
    books.settle(*(parked(attempt) for attempt in books.claim(*ids)))
    return ids


def test_a_plan_writes_nothing_and_tells_the_money(books):
    ids = stuck(books)
    facts = books.count("journal")
    found = replay.plan(Selection(state=State.PARKED))
    assert (found.ids, found.money, found.more) == (tuple(ids), {"eur": 3 * 4200}, False)
    assert books.count("journal") == facts
    assert {books.effect(i)["state"] for i in ids} == {"parked"}


def test_a_plan_is_cut_at_its_limit_and_says_so(books):
    ids = stuck(books)
    found = replay.plan(Selection(state=State.PARKED, limit=2))
    assert (found.ids, found.more) == (tuple(ids[:2]), True)
    named = replay.plan(Selection(ids=tuple(ids), limit=2))
    assert (named.ids, named.more) == (tuple(ids[:2]), True)


def test_a_plan_by_state_keeps_to_its_kind(books):
    stuck(books, 1)
    [mail] = books.accept(order("mail", kind="email"))
    [attempt] = books.claim(mail)
    books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    assert replay.plan(Selection(state=State.UNKNOWN, kind="charge")).ids == ()
    found = replay.plan(Selection(state=State.UNKNOWN, kind="email"))
    assert (found.ids, found.money) == ((mail,), {})


def test_a_plan_by_id_says_why_each_of_the_others_is_skipped(books):
    held, done, live, fresh = books.accept(*orders(4))
    one, two, _ = sorted(books.claim(held, done, live), key=lambda a: [held, done, live].index(a.id))
    books.settle(parked(one), final(two))
    foreign = order().id
    found = replay.plan(Selection(ids=(held, done, live, foreign, held)))
    assert found.ids == (held,)
    assert found.skipped == {
        "settled: succeeded": (done,),
        "an attempt is at work": (live,),
        "no such effect": (foreign,),
    }
    assert replay.plan(Selection(ids=(fresh,), state=State.PARKED)).skipped == {"pending, not parked": (fresh,)}
    assert replay.plan(Selection(ids=(held,), kind="email")).skipped == {"another kind than email": (held,)}


def test_what_is_carried_out_is_the_plan_and_what_changed_since_is_reported(books):
    one, two, three = stuck(books)
    found = replay.plan(Selection(state=State.PARKED))
    assert replay.execute(replay.plan(Selection(ids=(two,))), actor="ada", reason="first").replayed == (two,)
    [attempt] = books.claim(two)
    books.settle(final(attempt))
    done = replay.execute(found, actor="ada", reason="the provider is back")
    assert (sorted(done.replayed), done.changed) == (sorted([one, three]), (two,))
    assert [books.effect(i)["state"] for i in (one, two, three)] == ["pending", "succeeded", "pending"]
    reasons = books.rows(
        "select distinct actor, evidence ->> 'reason' as why from journal where fact = 'replayed' order by 2"
    )
    assert reasons == [{"actor": "ada", "why": "first"}, {"actor": "ada", "why": "the provider is back"}]


def test_an_empty_plan_does_nothing(books):  # noqa: ARG001 - the database
    done = replay.execute(Plan(()), actor="ada", reason="why not")
    assert (done.replayed, done.changed) == ((), ())


@pytest.mark.parametrize(
    ("selection", "field"),
    [
        (Selection(), "selection"),
        (Selection(kind="charge"), "selection"),
        (Selection(state=State.EXECUTING), "state"),
        (Selection(state=State.SUCCEEDED), "state"),
        (Selection(state=State.PARKED, limit=0), "limit"),
        (Selection(state=State.PARKED, limit=10_001), "limit"),
    ],
)
def test_a_selection_that_is_too_wide_or_makes_no_sense_is_refused(selection, field):
    with pytest.raises(ValidationError) as caught:
        replay.plan(selection)
    assert caught.value.field == field


def test_a_replay_needs_a_reason():
    with pytest.raises(ValidationError, match="reason"):
        replay.execute(Plan(()), actor="ada", reason="  ")


# --- is this database fit to keep promises ---------------------------------------------------------------------------


def test_the_server_tells_what_it_is(books):
    with statement() as connection:
        found = health.server(connection)
        assert health.unpaired(connection) == (0, 0)
    assert found.major >= 16
    assert (found.isolation, found.replica) == ("read committed", False)
    assert found.name == books.url.rpartition("/")[2]


def test_an_effect_without_its_duty_is_counted(books):
    lost, _ = books.accept(*orders(2))
    books.run("delete from outbox where effect_id = %s", lost)
    with statement() as connection:
        assert health.unpaired(connection) == (1, 0)
    books.run("insert into outbox (effect_id, kind, lane, road) values (%s, 'charge', 'charge', 'fresh')", lost)


def test_the_database_is_at_the_revision_of_the_code(books):
    with statement() as connection:
        assert schema.database_head(connection) == schema.code_head()
    schema.upgrade()
    books.run("alter table alembic_version rename to hidden")
    with statement() as connection:
        assert schema.database_head(connection) is None
    books.run("alter table hidden rename to alembic_version")
