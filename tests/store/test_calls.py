"""Calling a task, in every way Celery offers, puts exactly one effect on the books in the caller's transaction."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from celery import group
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from service.core.errors import DedupeConflict, EffectNotFound, ValidationError
from service.core.state import State
from service.store.database import engine
from tasks import EffectResult, cancel, capture, charge, email, refund
from tests.store.answers import final, waiting

PAY = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
MAIL = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}


@pytest.fixture
def no_broker(settings_from):
    """An address where nobody listens: accepting must not need the broker."""
    from tasks import app

    app.settings = settings_from(broker_url="redis://127.0.0.1:1/0")


def keys(books):
    return [row["dedupe_key"] for row in books.rows("select dedupe_key from effects order by dedupe_key")]


def test_a_call_in_the_callers_session_is_there_after_the_commit_and_answered_from_postgres(books):
    with Session(engine()) as session, session.begin():
        result = charge.apply_async(kwargs=PAY, dedupe_key="a", session=session)
        assert (result.state, result.created) == (State.PENDING, True)
        with pytest.raises(EffectNotFound, match="commit"):
            result.refresh()
    assert not result.ready()
    [attempt] = books.claim(result.id)
    books.settle(final(attempt))
    assert result.get(timeout=5) == {"state": "succeeded", "charge": "ch_1"}
    assert result.ready()
    assert result.successful()


def test_a_decline_is_an_outcome_and_not_an_exception(books):
    result = charge.apply_async(kwargs=PAY, dedupe_key="a")
    [attempt] = books.claim(result.id)
    books.settle(final(attempt, State.FAILED, outcome={"code": "card_declined"}))
    assert result.get(timeout=5) == {"state": "failed", "code": "card_declined"}
    assert not result.successful()


def test_waiting_has_a_limit_and_says_where_the_effect_stands(books):
    result = charge.apply_async(kwargs=PAY, dedupe_key="a")
    [attempt] = books.claim(result.id)
    books.settle(waiting(attempt, State.UNKNOWN, "unknown"))
    before = monotonic()
    with pytest.raises(TimeoutError, match=f"{result.id} is unknown"):
        result.get(timeout=0.1)
    assert monotonic() - before < 5
    assert "unknown" in repr(result)


def test_a_signature_goes_through_the_same_door(books):
    charge.s(**PAY).set(dedupe_key="s").apply_async()
    charge.si(**PAY).set(dedupe_key="si").apply_async()
    charge.signature(kwargs=PAY).apply_async(dedupe_key="signature")
    charge.delay(dedupe_key="delay", **PAY)
    charge.s(amount=4200).clone(kwargs={"currency": "eur", "payment_method": "pm_1"}).apply_async(dedupe_key="partial")
    assert keys(books) == ["delay", "partial", "s", "si", "signature"]
    again = charge.s(**PAY).set(dedupe_key="s").apply_async()
    assert (again.created, books.count("effects")) == (False, 5)


def test_a_signature_carries_its_options(books):
    charge.si(**PAY).set(dedupe_key="k", priority=7, tenant="shop", countdown=3600, queue="email").apply_async()
    [row] = books.rows(
        "select o.lane, o.priority, o.road, e.tenant, e.not_before from effects e join outbox o on o.effect_id = e.id"
    )
    assert (row["lane"], row["priority"], row["road"], row["tenant"]) == ("email", 7, "later", "shop")
    assert row["not_before"] is not None


def test_a_group_accepts_each_of_its_effects_and_its_results_are_theirs(books, no_broker):  # noqa: ARG001
    result = group(charge.si(**PAY).set(dedupe_key=f"k{i}") for i in range(3)).apply_async()
    ids = [child.id for child in result.results]
    assert sorted(ids) == sorted(str(row["id"]) for row in books.rows("select id from effects"))
    assert all(isinstance(child, EffectResult) for child in result.results)
    books.settle(*(final(attempt) for attempt in books.claim(*ids)))
    assert [child.get(timeout=5)["state"] for child in result.results] == ["succeeded"] * 3


def test_a_group_joins_the_callers_session(books, no_broker):  # noqa: ARG001
    both = group(charge.si(**PAY).set(dedupe_key="pay"), email.si(**MAIL).set(dedupe_key="mail"))
    with Session(engine()) as session:
        both.apply_async(session=session)
        session.rollback()
    assert books.count("effects") == 0
    with Session(engine()) as session, session.begin():
        both.apply_async(session=session)
    assert keys(books) == ["mail", "pay"]


def test_ten_thousand_effects_are_accepted_in_one_transaction_all_or_none(books):
    calls = [{"kwargs": PAY, "dedupe_key": f"k{i}"} for i in range(10_000)]
    with Session(engine()) as session:
        assert len(charge.apply_many(calls, session=session)) == 10_000
        session.rollback()
    assert books.count("effects") == 0
    results = charge.apply_many(calls)
    assert all(result.created for result in results)
    assert books.count("effects") == books.count("outbox") == books.count("journal") == 10_000
    assert books.one("select count(distinct xmin::text) from effects") == 1


def test_a_conflict_in_a_bulk_names_the_effect_and_writes_none_of_it(books):
    first = charge.apply_async(kwargs=PAY, dedupe_key="k1")
    calls = [{"kwargs": {**PAY, "amount": 1}, "dedupe_key": f"k{i}"} for i in range(3)]
    with Session(engine()) as session, session.begin(), pytest.raises(DedupeConflict) as caught:
        charge.apply_many(calls, session=session)
    assert caught.value.effect_id == first.id
    assert keys(books) == ["k1"]


def test_an_async_session_is_joined_by_awaiting_the_call(books):
    async def shop() -> EffectResult:
        made = create_async_engine(books.url.replace("postgresql://", "postgresql+psycopg://"))
        try:
            async with AsyncSession(made) as session, session.begin():
                result = await charge.apply_async(kwargs=PAY, dedupe_key="a", session=session)
                with pytest.raises(ValidationError, match="amount"):  # said at the call, before anything is awaited
                    charge.apply_async(kwargs={**PAY, "amount": 0}, dedupe_key="z", session=session)
                with pytest.raises(ValidationError, match="run_sync") as caught:
                    charge.apply_many([{"kwargs": PAY, "dedupe_key": "c"}], session=session)
                assert caught.value.field == "session"
                assert books.count("effects") == 0
            async with AsyncSession(made) as session:
                await charge.apply_async(kwargs=PAY, dedupe_key="b", session=session)
                await session.rollback()
            async with made.begin() as connection:
                repeated = await charge.apply_async(kwargs=PAY, dedupe_key="a", session=connection)
                assert (repeated.id, repeated.created) == (result.id, False)
            return result
        finally:
            await made.dispose()

    result = asyncio.run(shop())
    assert keys(books) == ["a"]
    assert str(books.one("select id from effects")) == result.id


def test_a_message_that_is_not_ours_executes_nothing(books):
    charge.run("not-an-id")
    charge.run(amount=4200, currency="eur")
    charge.run()
    assert books.count("effects") == 0


def test_the_receipt_of_a_charge_is_a_letter_with_a_key_of_its_own(books):
    from service.core.outcome import Succeeded
    from tasks.payments import receipt

    order = charge.order(None, {**PAY, "receipt_email": "ada@example.test", "description": "Order 17"}, dedupe_key="k")
    books.accept(order)
    [attempt] = books.claim(order.id)
    [letter] = receipt(attempt, Succeeded("pi_1"))
    assert (letter.kind, letter.dedupe_key, letter.caused_by) == ("email", f"{order.id}:receipt", order.id)
    assert letter.request["to"] == "ada@example.test"
    assert "42.00 EUR" in letter.request["text"]
    [again] = receipt(attempt, Succeeded("pi_1"))
    assert again.fingerprint == letter.fingerprint
    plain = charge.order(None, PAY, dedupe_key="plain")
    books.accept(plain)
    [attempt] = books.claim(plain.id)
    assert receipt(attempt, Succeeded("pi_2")) == []


def test_a_receipt_says_what_was_taken_when_a_capture_took_a_part(books):
    from service.core.outcome import Succeeded
    from tasks.payments import receipt

    order = charge.order(
        None, {**PAY, "receipt_email": "ada@example.test", "capture_method": "manual"}, dedupe_key="part"
    )
    books.accept(order)
    [attempt] = books.claim(order.id)
    [letter] = receipt(attempt, Succeeded("pi_1", {"amount": 4200, "amount_received": 1000}))
    assert "10.00 EUR" in letter.request["text"]
    assert "42.00" not in letter.request["text"]


def test_a_charge_and_what_acts_upon_it_join_one_transaction(books):
    with Session(engine()) as session:
        first = charge.apply_async(kwargs=PAY, dedupe_key="pay", session=session)
        money = {"charge": first.id, "amount": 4200, "currency": "eur"}
        refund.apply_async(kwargs=money, dedupe_key="back", session=session)
        session.rollback()
    assert books.count("effects") == 0
    with Session(engine()) as session, session.begin():
        first = charge.apply_async(kwargs={**PAY, "capture_method": "manual"}, dedupe_key="pay", session=session)
        money = {"charge": first.id, "amount": 4200, "currency": "eur"}
        refund.apply_async(kwargs=money, dedupe_key="back", session=session)
        capture.apply_async(kwargs=money, dedupe_key="take", session=session)
        cancel.apply_async(kwargs={"charge": first.id}, dedupe_key="release", session=session)
    found = books.rows(
        "select e.kind, concerns, ready_when, lane from effects e join outbox o on o.effect_id = e.id order by 1"
    )
    assert [(row["kind"], str(row["concerns"]), row["ready_when"], row["lane"]) for row in found] == [
        ("cancel", first.id, "authorised", "charge"),
        ("capture", first.id, "authorised", "charge"),
        ("charge", "None", None, "charge"),
        ("refund", first.id, "settled", "charge"),
    ]


def test_a_refund_goes_through_every_door_a_charge_goes_through(books, no_broker):  # noqa: ARG001
    paid = charge.apply_async(kwargs=PAY, dedupe_key="pay")
    part = {"charge": paid.id, "amount": 100, "currency": "eur"}
    refund.delay(dedupe_key="delay", **part)
    refund.s(**part).set(dedupe_key="s").apply_async()
    group(refund.si(**part).set(dedupe_key=f"group:{i}") for i in range(2)).apply_async()
    assert refund.apply_many([{"kwargs": part, "dedupe_key": "many"}])[0].created
    assert keys(books) == ["delay", "group:0", "group:1", "many", "pay", "s"]
    with pytest.raises(DedupeConflict):
        refund.apply_async(kwargs={**part, "amount": 101}, dedupe_key="s")
