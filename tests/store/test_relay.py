"""The relay hands over what is due, at least once; what it could not hand over comes due again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy.orm import Session

from service.core.errors import DependencyUnavailable
from service.engine.accept import accept, accept_alone
from service.engine.relay import MESSAGE_EFFECTS_MAX, Relay, Round
from service.settings import Settings
from service.store import bell
from service.store.database import engine
from tests.store.answers import final
from tests.store.books import ACTOR, order, orders
from tests.store.script import RecordingPublisher

WAIT_SECONDS = 20.0
SILENCE_SECONDS = 0.3  # how long a listener hears nothing before a test believes that nobody rang


def relay_of(publisher, **settings) -> Relay:
    return Relay(publisher, Settings(**settings), actor="relay")


def wait_until(condition, what):
    pause = threading.Event()
    for _ in range(int(WAIT_SECONDS / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail(f"waited in vain until {what}")


# --- one round -------------------------------------------------------------------------------------------------------


def test_a_round_publishes_what_is_due_once_and_the_next_round_nothing(books):
    ids = books.accept(*orders(5))
    publisher = RecordingPublisher()
    assert relay_of(publisher).run_once() == Round(taken=5, messages=1)
    assert publisher.ids == ids
    assert relay_of(publisher).run_once() == Round()


def test_messages_hold_one_kind_and_lane_and_a_few_dozen_ids(books):
    books.accept(
        *orders(MESSAGE_EFFECTS_MAX + 1),
        order("mail", kind="email"),
        order("vip", lane="vip"),
        order("x", kind="email"),
    )
    publisher = RecordingPublisher()
    relay_of(publisher).run_once()
    shape = [(message.task, message.lane, len(message.effect_ids)) for message in publisher.messages]
    assert shape == [
        ("charge", "charge", MESSAGE_EFFECTS_MAX),
        ("charge", "charge", 1),
        ("charge", "vip", 1),
        ("email", "email", 2),
    ]


def test_a_lane_keeps_its_order_of_priority_and_age(books):
    ids = books.accept(*(order(f"k{i}", priority=p) for i, p in enumerate([0, 9, 5, 9])))
    publisher = RecordingPublisher()
    relay_of(publisher).run_once()
    assert publisher.ids == [ids[1], ids[3], ids[2], ids[0]]


def test_the_window_leaves_the_backlog_in_postgres_until_something_is_settled(books):
    ids = books.accept(*orders(10))
    publisher = RecordingPublisher()
    relay = relay_of(publisher, window=4)
    assert relay.run_once() == Round(taken=4, messages=1, full=True)
    assert relay.run_once() == Round(full=True)
    [attempt] = books.claim(ids[0])
    books.settle(final(attempt))
    assert relay.run_once() == Round(taken=1, messages=1, full=True)
    assert publisher.ids == ids[:5]


def test_w4_a_lost_message_is_published_again_when_its_time_is_over(books):
    [effect_id] = books.accept()
    publisher = RecordingPublisher()
    relay = relay_of(publisher)
    relay.run_once()
    books.make_due(effect_id)
    assert relay.run_once() == Round(taken=1, messages=1)
    assert publisher.ids == [effect_id, effect_id]
    assert books.effect(effect_id)["state"] == "pending"


def test_an_attempt_that_went_silent_stands_as_unknown_when_it_is_published_again(books):
    silent, alive = books.accept(*orders(2))
    publisher = RecordingPublisher()
    relay = relay_of(publisher)
    relay.run_once()
    books.claim(silent, alive)
    books.end_lease(silent)
    books.make_due(silent)
    books.make_due(alive)
    assert relay.run_once() == Round(taken=2, messages=1, leased_out=1)
    assert [books.effect(i)["state"] for i in (silent, alive)] == ["unknown", "executing"]
    assert books.facts(silent)[-1] == "leased_out"


def test_w3_a_broker_that_is_away_gets_nothing_and_the_rows_come_due_again(books):
    ids = books.accept(*orders(40))
    publisher = RecordingPublisher()
    publisher.away.set()
    relay = relay_of(publisher)
    with pytest.raises(DependencyUnavailable, match="broker does not answer"):
        relay.run_once()
    assert {row["road"] for row in books.rows("select road from outbox")} == {"later"}
    assert "broker does not answer" in books.duty(ids[0])["last_error"]
    publisher.away.clear()
    for effect_id in ids:
        books.make_due(effect_id)
    assert relay.run_once().taken == 40
    assert sorted(publisher.ids) == sorted(ids)


def test_relays_side_by_side_publish_each_effect_once(books):
    ids = books.accept(*orders(300))
    publishers = [RecordingPublisher() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: relay_of(p, window=100_000).run_once(), publishers))
    published = [effect_id for publisher in publishers for effect_id in publisher.ids]
    assert sorted(published) == sorted(ids)


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(books):  # noqa: ARG001 - the database
    """A relay in a thread of its own; its poll is so slow that only the bell can wake it."""
    publisher = RecordingPublisher()
    relay = relay_of(publisher, poll=600.0)
    thread = threading.Thread(target=relay.run)
    thread.start()
    yield publisher
    relay.stop()
    bell.ring()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_the_relay_wakes_when_something_is_accepted(books, running):
    [first] = books.accept(order("first"))
    wait_until(lambda: running.ids == [first], "the first was published")
    with Session(engine()) as session, session.begin():
        [second] = accept(session, [order("second")], actor=ACTOR)
    wait_until(lambda: running.ids == [first, second.id], "the second was published")


def test_the_relay_waits_out_a_broker_that_is_away(books, running):
    running.away.set()
    [effect_id] = books.accept()
    wait_until(lambda: running.pings >= 2, "the relay asked for the broker again")
    running.away.clear()
    wait_until(lambda: running.ids == [effect_id], "it was published after all")


def test_the_relay_survives_the_loss_of_its_connections(books, running):
    [first] = books.accept(order("first"))
    wait_until(lambda: running.ids == [first], "the first was published")
    # And wait until each is gone: one that is only about to die may still be lent to the next accept.
    books.rows(
        """select pg_terminate_backend(pid, 10000) from pg_stat_activity
           where datname = current_database() and pid <> pg_backend_pid()
             and backend_type = 'client backend'"""
    )
    [second] = books.accept(order("second"))
    wait_until(lambda: running.ids == [first, second], "the second was published")


# --- the bell --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ear(books):
    """A connection that hears what the bell says."""
    with psycopg.connect(books.url, autocommit=True) as connection:
        connection.execute(f"listen {bell.CHANNEL}")
        yield lambda seconds: len(list(connection.notifies(timeout=seconds, stop_after=1)))


@pytest.mark.parametrize("way", ["alone", "session", "savepoint", "connection", "bulk"])
def test_a_commit_is_heard(ear, way):
    if way == "alone":
        accept_alone([order()], actor=ACTOR)
    elif way == "connection":
        with engine().begin() as connection:
            accept(connection, [order()], actor=ACTOR)
    else:
        with Session(engine()) as session, session.begin():
            if way == "savepoint":
                with session.begin_nested():
                    accept(session, [order()], actor=ACTOR)
                assert ear(SILENCE_SECONDS) == 0, "a released savepoint is no commit"
            else:
                accept(session, orders(3 if way == "bulk" else 1), actor=ACTOR)
            assert ear(SILENCE_SECONDS) == 0, "not before the commit"
    assert ear(WAIT_SECONDS) >= 1


def test_a_rollback_is_not_heard_not_even_at_the_next_commit(ear):
    with Session(engine()) as session:
        accept(session, [order()], actor=ACTOR)
        session.rollback()
        session.connection()
        session.commit()
    with engine().connect() as connection:
        accept(connection, [order()], actor=ACTOR)
        connection.rollback()
        connection.commit()
    assert ear(SILENCE_SECONDS) == 0


def test_many_commits_ring_few_times(books, ear):
    for i in range(60):
        accept_alone([order(f"k{i}")], actor=ACTOR)
    rings = 0
    while ear(SILENCE_SECONDS):
        rings += 1
    assert 1 <= rings < 60
    assert books.count("effects") == 60


def test_a_session_that_lives_long_collects_no_listeners(ear):
    with Session(engine()) as session:
        for i in range(50):
            accept(session, [order(f"k{i}")], actor=ACTOR)
            session.commit()
        assert len(list(session.dispatch.after_commit)) == 1
    assert ear(WAIT_SECONDS) >= 1


def test_the_bell_never_disturbs_whoever_rings(monkeypatch, books):  # noqa: ARG001 - books restores the caches
    from tests.conftest import forget_process_state

    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    forget_process_state()
    bell.ring()
