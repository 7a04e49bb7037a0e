"""Accept joins the caller's transaction: what commits is on the books once, what does not was never there (W1)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from service.core.errors import DedupeConflict, DependencyUnavailable, SettingsError
from service.core.state import State
from service.engine.accept import ORDERS_AT_ONCE, accept, accept_alone
from service.store import effects
from service.store.database import engine, make_engine, statement, transaction
from tests.store.books import ACTOR, order, orders


def test_one_commit_holds_the_effect_its_duty_and_its_first_fact(books):
    asked = order(context={"request_id": "req-1"}, priority=3)
    [answer] = accept_alone([asked], actor="shop:1")
    assert (answer.id, answer.state, answer.created) == (asked.id, State.PENDING, True)
    effect = books.effect(asked.id)
    assert (effect["state"], effect["attempt"], effect["in_doubt"]) == ("pending", 0, False)
    assert (effect["amount"], effect["currency"], effect["request"]) == (4200, "eur", dict(asked.request))
    assert effect["context"] == {"request_id": "req-1"}
    duty = books.duty(asked.id)
    assert (duty["kind"], duty["lane"], duty["priority"], duty["road"]) == ("charge", "charge", 3, "fresh")
    assert books.rows("select fact, attempt, actor from journal") == [
        {"fact": "accepted", "attempt": 0, "actor": "shop:1"}
    ]


def test_it_joins_the_session_and_stands_or_falls_with_the_business_row(books):
    books.run("create table sale (id int)")
    with Session(engine()) as session, session.begin():
        session.execute(text("insert into sale values (17)"))
        accept(session, [order()], actor=ACTOR)
        assert books.count("effects") == 0, "nobody sees it before the commit"
    assert (books.count("sale"), books.count("effects")) == (1, 1)


def test_it_joins_a_connection_too(books):
    with engine().begin() as connection:
        accept(connection, [order()], actor=ACTOR)
    assert books.count("effects") == 1


@pytest.mark.parametrize("many", [1, 3])
def test_w1_a_rollback_leaves_nothing(books, many):
    with pytest.raises(RuntimeError, match="shop"), Session(engine()) as session, session.begin():  # noqa: PT012
        accept(session, orders(many), actor=ACTOR)
        raise RuntimeError("shop")
    with engine().connect() as connection:
        accept(connection, orders(many), actor=ACTOR)
        connection.rollback()
    assert [books.count(t) for t in ("effects", "outbox", "journal")] == [0, 0, 0]


def test_w1_a_connection_that_dies_before_the_commit_leaves_nothing(books):
    connection = engine().connect()
    accept(connection, [order()], actor=ACTOR)
    connection.invalidate()
    connection.close()
    assert books.count("effects") == 0


def test_a_savepoint_that_is_rolled_back_takes_its_effect_along_and_only_that(books):
    with Session(engine()) as session, session.begin():
        accept(session, [order("kept")], actor=ACTOR)
        nested = session.begin_nested()
        accept(session, [order("dropped")], actor=ACTOR)
        nested.rollback()
        accept(session, [order("kept too")], actor=ACTOR)
    keys = books.rows("select dedupe_key from effects order by id")
    assert [row["dedupe_key"] for row in keys] == ["kept", "kept too"]


def test_the_same_key_and_request_is_the_same_effect_for_ever(books):
    [first] = accept_alone([order()], actor=ACTOR)
    [again] = accept_alone([order()], actor=ACTOR)
    assert (again.id, again.created, again.state) == (first.id, False, State.PENDING)
    [attempt] = books.claim(first.id)
    [during] = accept_alone([order()], actor=ACTOR)
    assert (during.id, during.state, attempt.number) == (first.id, State.EXECUTING, 1)
    assert [books.count(t) for t in ("effects", "outbox")] == [1, 1]


def test_the_same_key_twice_in_one_call_is_one_effect(books):
    answers = accept_alone([order("a"), order("b"), order("a")], actor=ACTOR)
    assert answers[0].id == answers[2].id != answers[1].id
    assert sum(answer.created for answer in answers) == 2
    assert books.count("effects") == 2


def test_the_same_key_twice_in_one_call_with_different_requests_is_refused(books):
    with pytest.raises(DedupeConflict):
        accept_alone([order("a"), order("a", amount=1)], actor=ACTOR)
    assert books.count("effects") == 0


@pytest.mark.parametrize("other", [{"tenant": "shop-2"}, {"kind": "email"}])
def test_another_tenant_or_kind_may_use_the_same_key(books, other):
    accept_alone([order(), order(**other)], actor=ACTOR)
    assert books.count("effects") == 2


def test_i4_the_same_key_with_another_request_is_refused_and_changes_nothing(books):
    [first] = books.accept(order(amount=4200))
    before = books.effect(first), books.duty(first), books.facts(first)
    with pytest.raises(DedupeConflict, match="order:17:charge") as caught:
        accept_alone([order(amount=4300)], actor=ACTOR)
    assert (caught.value.effect_id, caught.value.field, caught.value.code) == (first, "dedupe_key", "dedupe_conflict")
    assert (books.effect(first), books.duty(first), books.facts(first)) == before


def test_i4_a_conflict_in_the_middle_of_a_bulk_that_is_caught_writes_none_of_the_bulk(books):
    books.accept(order("taken", amount=1))
    with Session(engine()) as session, session.begin():
        accept(session, [order("before")], actor=ACTOR)
        with pytest.raises(DedupeConflict):
            accept(session, [order("new"), order("taken", amount=2), order("newer")], actor=ACTOR)
        accept(session, [order("after")], actor=ACTOR)
    keys = {row["dedupe_key"] for row in books.rows("select dedupe_key from effects")}
    assert keys == {"taken", "before", "after"}


def test_i4_a_conflict_in_a_later_part_of_a_large_bulk_writes_none_of_it(books):
    books.accept(order("taken", amount=1))
    bulk = [*orders(ORDERS_AT_ONCE + 5), order("taken", amount=2)]
    with Session(engine()) as session, session.begin(), pytest.raises(DedupeConflict):
        accept(session, bulk, actor=ACTOR)
    with pytest.raises(DedupeConflict):
        accept_alone(bulk, actor=ACTOR)
    assert books.count("effects") == 1


def test_a_conflict_of_one_that_is_caught_leaves_the_callers_transaction_usable(books):
    books.accept(order("taken", amount=1))
    with Session(engine()) as session, session.begin():
        with pytest.raises(DedupeConflict):
            accept(session, [order("taken", amount=2)], actor=ACTOR)
        accept(session, [order("fresh")], actor=ACTOR)
    assert books.count("effects") == 2


def test_fifty_threads_that_accept_the_same_key_at_once_make_one_effect(books):
    together = threading.Barrier(25)

    def one(number: int):
        if number < 25:
            together.wait(20)
        return accept_alone([order()], actor=f"thread:{number}")[0]

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(one, range(50)))
    assert len({answer.id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert [books.count(t) for t in ("effects", "outbox", "journal")] == [1, 1, 1]


def test_fifty_threads_with_different_requests_for_one_key_have_one_winner(books):  # noqa: ARG001 - the database
    def one(amount: int):
        try:
            return accept_alone([order(amount=amount)], actor=ACTOR)[0].created
        except DedupeConflict:
            return None

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(one, range(1, 51)))
    assert answers.count(True) == 1
    assert answers.count(None) == 49


def test_two_bulks_with_the_same_keys_in_opposite_order_do_not_deadlock(books):
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            # Callers share keys and never ids: each names its effects anew.
            parts = [orders(300), orders(300)[::-1], orders(300)[100:], orders(300)[::-2]]
            done = list(pool.map(lambda part: accept_alone(part, actor=ACTOR), parts))
            assert [len(answers) for answers in done] == [len(part) for part in parts]
    assert books.count("effects") == 300


def test_answers_come_in_the_order_of_the_orders(books):
    books.accept(*orders(5))
    answers = accept_alone(orders(9), actor=ACTOR)
    keys = {str(r["id"]): r["dedupe_key"] for r in books.rows("select id, dedupe_key from effects")}
    assert [keys[answer.id] for answer in answers] == [f"order:{i}:charge" for i in range(9)]
    assert [answer.created for answer in answers] == [False] * 5 + [True] * 4


def test_nothing_asked_is_nothing_done(books):
    with engine().begin() as connection:
        assert accept(connection, [], actor=ACTOR) == []
    assert accept_alone([], actor=ACTOR) == []
    assert books.count("effects") == 0


def test_a_later_effect_takes_the_other_road_and_a_past_eta_is_due_now(books):
    now = datetime.now(UTC)
    later, past = (
        order("later", not_before=now + timedelta(hours=1)),
        order("past", not_before=now - timedelta(hours=1)),
    )
    books.accept(later, past)
    assert (books.duty(later.id)["road"], books.duty(past.id)["road"]) == ("later", "fresh")
    assert books.duty(later.id)["available_at"] == later.not_before == books.effect(later.id)["not_before"]


def test_effects_are_found_by_id_and_tenant_and_never_show_their_request(books):
    [first] = books.accept(order(tenant="shop"))
    with statement() as connection:
        shown = effects.get(connection, first, tenant="shop")
        assert shown is not None
        assert shown["state"] == "pending"
        assert shown["road"] == "fresh"
        assert "request" not in shown
        assert effects.get(connection, first, tenant="other") is None
        assert effects.get(connection, order().id) is None


def test_pages_go_from_the_newest_to_the_oldest_without_gaps(books):
    ids = books.accept(*orders(7))
    books.accept(order("mail", kind="email"), order("other", tenant="shop"))
    seen, after = [], None
    with statement() as connection:
        while page := effects.page(
            connection, {"tenant": "default", "kind": "charge", "state": None}, after=after, limit=3
        ):
            seen += [row["id"] for row in page]
            after = page[-1]["id"]
        assert len(effects.page(connection, {}, after=None, limit=100)) == 9
    assert seen == ids[::-1]


def test_a_database_that_is_away_is_one_sentence(monkeypatch, books):  # noqa: ARG001 - books restores the caches
    from tests.conftest import forget_process_state

    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    forget_process_state()
    with pytest.raises(DependencyUnavailable, match=r"Postgres does not answer: .+") as caught:
        accept_alone([order()], actor=ACTOR)
    assert "\n" not in str(caught.value)
    with pytest.raises(DependencyUnavailable), transaction():
        pass


@pytest.mark.parametrize("url", ["mysql://localhost/x", "localhost:5432"])
def test_another_databases_url_is_refused(url):
    with pytest.raises(SettingsError, match="COUNTERFOIL_DATABASE_URL"):
        make_engine(url)
