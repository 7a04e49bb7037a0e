"""An event is kept once and nudges its effect in the same commit; whatever its order, age or number, we look instead."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from service.core.event import Event
from service.core.outcome import Awaiting, Deferred, Failed, Succeeded, Unknown
from service.core.state import State
from service.engine import inbox
from service.engine.kind import Kind
from tests.store.asked import AskedProvider, kind_of, made, open_breaks
from tests.store.books import order

_SERIAL = iter(range(1, 100_000))
YES = Succeeded("pi_1", {"charge": "ch_1"})
NO = Failed("canceled", "It was canceled", {"code": "canceled"})


def event(effect_id: str | None = None, type_: str = "payment_intent.succeeded", **changes) -> Event:
    about = {
        "provider": "stripe",
        "id": f"evt_{next(_SERIAL)}",
        "type": type_,
        "object_id": "pi_1",
        "object_type": "payment_intent",
        "effect_id": effect_id,
        "payment_intent": "pi_1",
        "at": datetime(2026, 11, 1, tzinfo=UTC),
        "livemode": False,
    }
    return Event(**{**about, **changes})


def told(*events: Event):
    return [inbox.receive(one, actor="api") for one in events]


def run(books, says=None, *, kinds=None) -> tuple[dict[str, int], AskedProvider]:
    """What is open comes due, and one run looks at it."""
    books.run("update inbox set available_at = now() - interval '1 second' where processed_at is null")
    provider = AskedProvider(says or Unknown("not_found"))
    found = inbox.run_once(kinds or {"charge": kind_of(provider)}, actor="inbox", seconds=2.0)
    return {name: count for name, count in found.items() if count}, provider


def results(books) -> list[str | None]:
    return [row["result"] for row in books.rows("select result from inbox order by received_at")]


# --- receiving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.UNKNOWN, State.AWAITING])
def test_an_event_makes_its_effect_come_due_now(books, state):
    effect_id = made(books, state)
    assert not books.claim(effect_id), "it waits"
    [received] = told(event(effect_id))
    assert (received.new, received.nudged) == (True, (effect_id,))
    assert books.facts(effect_id)[-1] == "hinted"
    assert books.effect(effect_id)["not_before"] is None
    assert books.one("select available_at <= now() from outbox where effect_id = %s", effect_id)
    assert books.claim(effect_id)


def test_an_event_that_names_nobody_finds_its_effect_by_the_providers_reference(books):
    effect_id = made(books, State.AWAITING)
    ref = f"pi_{effect_id}"
    [charge] = told(event(None, "charge.succeeded", object_id="ch_1", object_type="charge", payment_intent=ref))
    assert charge.nudged == (effect_id,)


def test_an_event_told_again_is_nothing_new(books):
    effect_id = made(books, State.UNKNOWN)
    one = event(effect_id)
    first, second = told(one, one)
    assert (first.new, second.new, second.nudged) == (True, False, ())
    assert books.count("inbox") == 1
    assert books.facts(effect_id).count("hinted") == 1


@pytest.mark.parametrize("state", [State.PENDING, State.EXECUTING, State.PARKED, State.SUCCEEDED, State.FAILED])
def test_no_other_effect_is_touched_by_hearing(books, state):
    effect_id = made(books, state)
    before = books.effect(effect_id), books.duty(effect_id), books.facts(effect_id)
    assert told(event(effect_id))[0].nudged == ()
    assert (books.effect(effect_id), books.duty(effect_id), books.facts(effect_id)) == before


def test_what_acts_upon_the_named_effect_is_nudged_as_well(books):
    charged = made(books, State.SUCCEEDED)
    request = {"amount": 4200, "currency": "eur"}
    [capture] = books.accept(order("capture", amount=4200, concerns=charged, ready_when="settled", request=request))
    [attempt] = books.claim(capture)
    from tests.store.answers import waiting

    books.settle(waiting(attempt, State.UNKNOWN, "unknown", after_seconds=300.0))
    assert told(event(charged))[0].nudged == (capture,)


def test_a_locked_effect_does_not_keep_stripe_waiting(books):
    import psycopg

    effect_id = made(books, State.UNKNOWN)
    with psycopg.connect(books.url) as other:
        other.execute("select 1 from effects where id = %s for update", (effect_id,))
        [received] = told(event(effect_id))
        other.rollback()
    assert (received.new, received.nudged) == (True, ())
    counts, _ = run(books, YES)
    assert counts == {"settled": 1}


def test_only_ids_are_kept(books):
    told(event())
    columns = {
        r["column_name"]
        for r in books.rows("select column_name from information_schema.columns where table_name = 'inbox'")
    }
    assert columns == {
        "provider", "event_id", "type", "object_id", "object_type", "effect_id", "payment_intent", "event_at",
        "received_at", "available_at", "tries", "processed_at", "result",
    }  # fmt: skip


# --- looking --------------------------------------------------------------------------------------------------------


def test_two_events_for_one_change_are_one_look(books):
    effect_id = made(books, State.PARKED)
    told(
        event(effect_id), event(effect_id), event(effect_id, "charge.succeeded", object_type="charge", object_id="ch_1")
    )
    counts, provider = run(books, YES)
    assert counts == {"settled": 3}
    assert len(provider.seen) == 1
    assert books.effect(effect_id)["state"] == "succeeded"
    assert books.one("select count(*) from effects where caused_by = %s", effect_id) == 1


@pytest.mark.parametrize("state", [State.UNKNOWN, State.AWAITING, State.PARKED])
def test_the_last_word_is_the_providers_in_whatever_order_events_arrive(books, state):
    effect_id = made(books, state)
    late, ref = datetime(2026, 11, 2, tzinfo=UTC), f"pi_{effect_id}"
    ours = {"object_id": ref, "payment_intent": ref}
    told(event(effect_id, at=late, **ours), event(effect_id, "payment_intent.payment_failed", **ours))
    run(books, Succeeded(ref))
    assert books.effect(effect_id)["state"] == "succeeded"
    told(event(effect_id, "payment_intent.processing", **ours), event(effect_id, "payment_intent.created", **ours))
    counts, provider = run(books)
    assert (counts, provider.seen) == ({"agrees": 2}, [])


def test_an_intent_that_only_the_event_knows_is_asked_for_and_recorded(books):
    effect_id = made(books, State.UNKNOWN)
    told(event(effect_id, "payment_intent.created", payment_intent="pi_lost", object_id="pi_lost"))
    counts, provider = run(books, Unknown("not_confirmed"))
    assert counts == {"nudged": 1}
    assert provider.seen[0].progress["payment_intent"] == "pi_lost"
    assert books.effect(effect_id)["progress"] == {"payment_intent": "pi_lost"}


def test_a_nudged_effect_that_still_waits_is_looked_at_once(books):
    effect_id = made(books, State.AWAITING)
    ref = f"pi_{effect_id}"
    told(event(effect_id, "payment_intent.processing", object_id=ref, payment_intent=ref))
    counts, _ = run(books, Awaiting("processing", ref))
    assert counts == {"agrees": 1}


def test_what_fits_a_final_effect_costs_no_call_and_what_does_not_is_looked_at(books):
    effect_id = made(books, State.SUCCEEDED)
    ref = f"pi_{effect_id}"
    about = {"object_id": ref, "payment_intent": ref}
    told(
        event(effect_id, **about),
        event(effect_id, "charge.refunded", **about),
        event(effect_id, "charge.updated", **about),
    )
    assert run(books)[0] == {"agrees": 3}
    told(event(effect_id, "payment_intent.payment_failed", **about))
    counts, provider = run(books, Succeeded(ref))
    assert (counts, len(provider.seen)) == ({"agrees": 1}, 1), "an old event, overtaken by the success"
    told(event(effect_id, "payment_intent.canceled", **about))
    assert run(books, NO)[0] == {"contradiction": 1}
    assert open_breaks(books) == [("late_contradiction", effect_id)]
    assert books.effect(effect_id)["state"] == "succeeded"


def test_money_that_moved_after_we_said_failed_is_a_break(books):
    effect_id = made(books, State.FAILED)
    told(event(effect_id))
    assert run(books, YES)[0] == {"contradiction": 1}
    assert open_breaks(books) == [("contradiction", effect_id)]
    assert books.effect(effect_id)["state"] == "failed"


def test_a_second_intent_with_our_mark_that_succeeded_is_a_duplicate(books):
    effect_id = made(books, State.SUCCEEDED, progress={"payment_intent": "pi_first"})
    told(event(effect_id, object_id="pi_2", payment_intent="pi_2"))
    counts, provider = run(books, Succeeded("pi_2"))
    assert counts == {"contradiction": 1}
    assert provider.seen[0].progress["payment_intent"] == "pi_2"
    assert open_breaks(books) == [("duplicate_effect", effect_id)]


def test_an_effect_that_would_confirm_a_second_time_is_stopped(books):
    effect_id = made(books, State.UNKNOWN, progress={"payment_intent": "pi_first"})
    told(event(effect_id, object_id="pi_2", payment_intent="pi_2"))
    assert run(books, Succeeded("pi_2"))[0] == {"contradiction": 1}
    assert books.effect(effect_id)["state"] == "parked"
    assert books.duty(effect_id)["parked_reason"] == "second_object"
    assert open_breaks(books) == [("duplicate_effect", effect_id)]


@pytest.mark.parametrize("state", [State.EXECUTING, State.PENDING])
def test_while_an_attempt_is_at_work_the_event_waits(books, state):
    effect_id = made(books, state)
    told(event(effect_id))
    counts, provider = run(books, YES)
    assert (counts, provider.seen, results(books)) == ({"later": 1}, [], [None])
    books.run("update inbox set received_at = received_at - interval '4 days'")
    assert run(books)[0] == {"undecided": 1}


def test_what_is_not_ours_is_kept_and_ignored(books):
    told(
        event(None, "customer.created", object_id="cus_1", object_type="customer", payment_intent=None),
        event(None, "balance.available", object_id="", object_type="balance", payment_intent=None),
        event(None),
        event("01890000-0000-7000-8000-000000000000"),
    )
    counts, provider = run(books)
    assert (counts, provider.seen) == ({"ignored": 2, "not_ours": 2}, [])
    assert results(books) == ["ignored", "ignored", "not_ours", "not_ours"]


# --- outages --------------------------------------------------------------------------------------------------------


def test_a_provider_that_does_not_answer_is_asked_once_a_run_and_the_events_stay_open(books):
    ids = [made(books, State.PARKED) for _ in range(3)]
    told(*(event(effect_id) for effect_id in ids))
    counts, provider = run(books, Deferred("rate_limited"))
    assert (counts, len(provider.seen)) == ({"later": 3}, 1)
    assert results(books) == [None] * 3
    assert books.one("select bool_and(available_at > now() + interval '1 second') from inbox"), "with a backoff"
    run(books, Deferred("rate_limited"))
    assert books.one("select max(extract(epoch from available_at - now())) > 3 from inbox")
    for effect_id in ids:
        assert run(books, Succeeded(f"pi_{effect_id}"))[0]
        break
    assert "settled" in results(books)


def test_a_worker_without_a_key_leaves_the_events_to_others(books):
    from service.core.errors import SettingsError

    def no_provider():
        raise SettingsError("COUNTERFOIL_STRIPE_API_KEY is not set")

    told(event(made(books, State.PARKED)))
    assert run(books, kinds={"charge": Kind("charge", provider=no_provider)})[0] == {"later": 1}
    told(event(made(books, State.PARKED)))
    assert run(books, kinds={"email": kind_of(AskedProvider(), "email")})[0] == {"later": 2}, "an older version of us"


def test_events_taken_by_one_who_died_come_back(books):
    from service.store import inbox as store
    from service.store.database import statement

    told(event(made(books, State.PARKED)))
    with statement() as connection:
        [row] = store.take(connection, 10, hold_seconds=60.0)
        assert store.take(connection, 10, hold_seconds=60.0) == []
    assert (row.tries, row.state) == (1, State.PARKED)
    assert run(books, YES)[0] == {"settled": 1}


def test_many_open_events_are_worked_off_in_batches(books):
    effect_id = made(books, State.SUCCEEDED)
    books.run(
        """insert into inbox (provider, event_id, type, object_id, object_type, effect_id, event_at)
           select 'stripe', 'evt_many_' || n, 'charge.updated', 'ch_1', 'charge', %s, now() from generate_series(1, 1200) n""",
        effect_id,
    )
    assert run(books)[0] == {"agrees": 1200}
