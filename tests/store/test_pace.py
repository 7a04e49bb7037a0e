"""Pace: an account is asked no more often than it allows; what must wait keeps its attempts, its turn and its rank."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from service.engine import pace
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.engine.pace import Meter, bucket_of
from service.settings import Settings
from service.store import buckets, database, paced
from service.store.buckets import Bucket
from tests.store.answers import final
from tests.store.books import Books, order, orders
from tests.store.script import ScriptedProvider

REDELIVERY = 105.0
ONCE = Bucket("stripe test", pace.COSTS, 0.001, 20.0)
"""Twenty calls at once and then none for as long as a test lasts."""


def put(bucket: Bucket) -> None:
    with database.statement() as connection:
        buckets.put(connection, bucket)


def grant(bucket: Bucket, effects: int, kind: str = "charge") -> int:
    with database.statement() as connection:
        found = buckets.take(connection, bucket, kind, effects)
    assert found is not None
    return found.effects


def tokens() -> float:
    with database.statement() as connection:
        [row] = buckets.standing(connection)
    return float(row["tokens"])


def worker(**settings) -> Executor:
    """Ten calls a second, of which the first (a burst of two) is one charge."""
    return Executor(Settings(**{"slots": 8, "stripe_rate": 10.0, **settings}), actor="worker")


def taken(batch: int = 500) -> list[str]:
    return [row.effect_id for row in Meter("relay").take(batch, REDELIVERY)]


# --- the bucket ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "account", "calls"),
    [
        ({"stripe_api_key": "sk_test_1"}, "stripe test", 25.0),
        ({"stripe_api_key": "sk_live_1", "allow_live": True}, "stripe live", 100.0),
        ({"stripe_api_key": "sk_live_1", "allow_live": True, "stripe_rate": 400.0}, "stripe live", 400.0),
        ({"stripe_api_key": "sk_test_1", "stripe_rate": 0}, None, 0),
        ({"stripe_api_key": "sk_test_1", "stripe_api_base": "http://127.0.0.1:9"}, None, 0),
        (
            {"stripe_api_key": "sk_test_1", "stripe_api_base": "http://127.0.0.1:9", "stripe_rate": 50},
            "stripe test",
            50,
        ),
    ],
)
def test_the_pace_is_that_of_the_key_s_mode_unless_it_is_set_and_none_for_a_fake(given, account, calls):
    found = bucket_of("stripe", Settings(**given))
    assert (found.account if found else None) == account
    # What flows in a second, and what may come at once: together the pace, so that no second has more.
    assert found is None or found.per_second + found.burst == pytest.approx(calls)


@pytest.mark.parametrize(
    ("provider", "given", "calls"),
    [
        ("resend", {"email_url": "resend+https://KEY@api.resend.com"}, 5.0),
        ("resend", {"email_url": "resend+http://KEY@127.0.0.1:1"}, None),
        ("smtp", {"email_url": "smtp://mail.example.test"}, None),
        ("smtp", {"email_url": "smtp://mail.example.test", "email_rate": 30.0}, 30.0),
        ("another", {"email_rate": 30.0}, None),
    ],
)
def test_letters_have_a_pace_at_resend_and_over_smtp_only_when_it_is_set(provider, given, calls):
    found = bucket_of(provider, Settings(**given))
    assert (found and found.per_second) == (calls and pytest.approx(calls * 0.9))


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused_at_start(wrong):
    with pytest.raises(ValueError, match="stripe_rate"):
        Settings(stripe_rate=wrong)


def test_a_charge_takes_two_calls_and_a_refund_one(books):  # noqa: ARG001 - the database
    put(ONCE)
    assert grant(ONCE, 7) == 7
    assert grant(ONCE, 4, "refund") == 4
    assert grant(ONCE, 5) == 1, "eighteen of twenty calls are taken"
    assert grant(ONCE, 1, "refund") == 0


def test_many_takers_get_together_what_has_flowed_in_and_no_more(books):
    bucket = Bucket("stripe test", pace.COSTS, 200.0, 20.0)
    put(bucket)
    begun = books.one("select clock_timestamp()")
    until = monotonic() + 1.0
    got = [0] * 6

    def take_until_the_end(i: int) -> None:
        while monotonic() < until:
            got[i] += 2 * grant(bucket, 3)

    with ThreadPoolExecutor(6) as crowd:
        list(crowd.map(take_until_the_end, range(6)))
    seconds = (books.one("select clock_timestamp()") - begun).total_seconds()
    assert sum(got) <= 20 + 200 * seconds
    assert sum(got) >= 20 + 200 * 0.5, "it flows"


def test_a_clock_that_went_back_stops_nobody(books):
    put(ONCE)
    assert grant(ONCE, 10) == 10
    books.run("update buckets set filled_at = now() + interval '2 hours', per_second = 1000")
    assert grant(ONCE, 1) == 0
    books.run("update buckets set filled_at = filled_at - interval '1 second'")
    assert grant(ONCE, 1) == 1


def test_a_kind_has_one_bucket_whichever_provider_was_configured_before(books):
    for account in ("resend", "smtp"):
        put(Bucket(account, {"email": 1}, 1.0, 1.0))
    put(ONCE)
    assert [row["account"] for row in books.rows("select account from buckets order by 1")] == ["smtp", "stripe test"]
    with database.statement() as connection:
        buckets.drop(connection, ["email"])
    assert books.one("select account from buckets") == "stripe test"


# --- workers ---------------------------------------------------------------------------------------------------------


def test_what_gets_no_token_is_not_claimed_and_spends_neither_attempt_nor_delivery(books, monkeypatch):
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 0.0)
    ids = books.accept(*orders(5))
    assert taken() == ids
    provider = ScriptedProvider()
    report = worker().run(Kind("charge", provider=lambda: provider), ids)
    assert (report.asked, report.claimed, report.ended) == (5, 1, {"succeeded": 1})
    assert [attempt.id for attempt in provider.seen] == ids[:1]
    for effect_id in ids[1:]:
        row, duty = books.effect(effect_id), books.duty(effect_id)
        assert (row["state"], row["attempt"], row["first_sent_at"]) == ("pending", 0, None)
        assert (duty["road"], duty["deliveries"], duty["last_error"]) == ("later", 0, "the pace of stripe")
        assert books.facts(effect_id) == ["accepted"]


def test_a_worker_waits_a_moment_for_tokens_with_its_message_in_hand(books):
    ids = books.accept(*orders(3))
    provider = ScriptedProvider()
    assert worker().run(Kind("charge", provider=lambda: provider), ids).ended == {"succeeded": 3}
    assert [attempt.id for attempt in provider.seen] == ids, "in the order of the message: priority, then age"


def test_a_doubled_message_gives_its_tokens_back(books):
    ids = books.accept(*orders(3))
    provider = ScriptedProvider()
    executor = worker(stripe_rate=1000.0)
    executor.run(Kind("charge", provider=lambda: provider), ids)
    books.run("update buckets set per_second = 0.001")
    before = tokens()
    executor.run(Kind("charge", provider=lambda: provider), ids)
    assert tokens() == pytest.approx(before, abs=0.1)


def test_nobody_waits_for_a_place_with_tokens_in_hand(books):
    """A provider that is slow fills the places; the tokens flow on for others."""
    release, executor = threading.Event(), worker(slots=1, stripe_rate=1000.0)

    def slow(attempt, lease):
        assert release.wait(20)
        return ScriptedProvider().usual(attempt, lease)

    ids = books.accept(*orders(4))
    provider = ScriptedProvider(usual=slow)
    running = threading.Thread(target=executor.run, args=(Kind("charge", provider=lambda: provider), ids))
    running.start()
    try:
        looked = threading.Event()
        for _ in range(2000):
            if books.one("select count(*) from effects where state = 'executing'") == 2:
                break
            looked.wait(0.01)
        books.run("update buckets set per_second = 0.001, tokens = 50, filled_at = now()")
        looked.wait(0.2)
        assert tokens() == pytest.approx(50, abs=0.1), "two have the two places; the third has no token yet"
    finally:
        release.set()
        running.join(20)
    assert books.one("select count(*) from effects where state = 'succeeded'") == 4


def test_what_another_attempt_holds_and_what_is_settled_are_not_put_off(books):
    held, settled, idle = books.accept(*orders(3))
    taken()
    books.claim(held)
    [attempt] = books.claim(settled)
    books.settle(final(attempt))
    with database.statement() as connection:
        assert paced.put_off(connection, [held, settled, idle], seconds=1.0, why="a test") == [idle]
    assert books.duty(held)["road"] == "published"


# --- relays ----------------------------------------------------------------------------------------------------------


def test_a_relay_publishes_a_second_s_worth_ahead_and_by_priority(books):
    put(Bucket("stripe test", pace.COSTS, 20.0, 2.0))
    books.accept(*orders(50))
    [urgent] = books.accept(order("urgent", priority=9))
    first = taken()
    assert (first[0], len(first)) == (urgent, 10), "ten charges of two calls, the urgent one first"
    assert taken() == []
    attempts = books.claim(*first[:4])
    assert len(taken()) == 4, "as many as have begun"
    books.settle(*map(final, attempts))
    assert taken() == []


def test_a_flood_that_comes_due_again_does_not_stand_before_what_is_urgent(books):
    put(Bucket("stripe test", pace.COSTS, 4.0, 2.0))
    books.accept(*orders(40))
    books.run("update outbox set road = 'later', available_at = now() - interval '1 hour'")
    [urgent] = books.accept(order("urgent", priority=9))
    assert taken()[0] == urgent


def test_what_has_no_limit_is_not_held_up_by_what_has(books):
    put(Bucket("stripe test", pace.COSTS, 4.0, 2.0))
    books.accept(*orders(30))
    letters = books.accept(*(order(f"letter:{i}", kind="email", lane="email") for i in range(30)))
    strangers = books.accept(*(order(f"other:{i}", kind="parcel", lane="email") for i in range(3)))
    found = taken()
    assert set(letters + strangers) < set(found)
    assert len(found) == 33 + 2


def test_what_is_not_due_or_parked_is_not_taken(books):
    put(ONCE)
    [due, parked] = books.accept(*orders(2))
    books.accept(order("scheduled", not_before=datetime.now(UTC) + timedelta(hours=1)))
    books.run(
        "update outbox set road = 'parked', parked_at = now(), parked_reason = 'a test' where effect_id = %s", parked
    )
    books.run("update effects set state = 'parked' where id = %s", parked)
    books.run("insert into journal (effect_id, fact, attempt, actor) values (%s, 'parked', 0, 'test')", parked)
    assert taken() == [due]


def test_w4_messages_that_were_lost_hold_nobody_up_for_long(books):
    put(Bucket("stripe test", pace.COSTS, 4.0, 2.0))
    books.accept(*orders(10))
    assert len(taken()) == 2
    assert taken() == []
    books.run(
        f"update outbox set available_at = available_at - interval '{paced.LOST_SECONDS} s' where road = 'published'"
    )
    assert len(taken()) == 2
    books.run("update outbox set available_at = now() - interval '1 second' where road = 'published'")
    assert len(taken()) == 2, "and those that come due again are among them, before the others"
    assert books.one("select count(*) from outbox where deliveries = 2") == 2


def test_relays_side_by_side_take_each_effect_once(books):
    put(Bucket("stripe test", pace.COSTS, 10_000.0, 10.0))
    ids = books.accept(*orders(300))
    with ThreadPoolExecutor(4) as pool:
        found = [i for some in pool.map(lambda _: taken(), range(4)) for i in some]
    assert sorted(found + taken()) == sorted(ids)


# --- without the tables ----------------------------------------------------------------------------------------------

BROKEN = {
    "the tables are away": "alter table buckets rename to buckets_away; alter table circuits rename to circuits_away",
    "a column is away": "alter table buckets rename column granted to something; alter table circuits drop column kinds",
    "the costs are no numbers": """insert into buckets (account, costs, per_second, burst, tokens)
        values ('stripe test', '{"charge": "many"}', 1, 1, 1)""",
}


@pytest.mark.parametrize("how", BROKEN)
def test_without_sound_limits_effects_flow(books: Books, how: str, said):
    for statement in BROKEN[how].split(";"):
        books.run(statement)
    ids = books.accept(*orders(3))
    assert taken() == ids
    provider = ScriptedProvider()
    executor = worker(stripe_rate=1000.0)
    assert executor.run(Kind("charge", provider=lambda: provider), ids).ended == {"succeeded": 3}
    if "numbers" not in how:
        assert "limits_away" in [line["event"] for line in said]


def test_a_bucket_that_was_deleted_is_there_again(books):
    executor, provider = worker(stripe_rate=1000.0), ScriptedProvider()
    for turn in range(2):
        ids = books.accept(*(order(f"{turn}:{i}") for i in range(2)))
        assert executor.run(Kind("charge", provider=lambda: provider), ids).claimed == 2
        assert books.run("delete from buckets") == 1


def test_a_locked_bucket_does_not_hold_the_effects_for_longer_than_a_lock_may_last(books):
    import psycopg

    put(ONCE)
    ids = books.accept(*orders(2))
    provider = ScriptedProvider()
    with psycopg.connect(books.url) as other:
        other.execute("select 1 from buckets for update")
        assert worker().run(Kind("charge", provider=lambda: provider), ids).ended == {"succeeded": 2}
        other.rollback()
