"""Retention: old requests go, and their keys, fingerprints, amounts and facts answer as before; what may be needed stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.core.errors import DedupeConflict, ValidationError
from service.core.state import State
from service.engine import erasure, retention
from service.engine.accept import accept_alone
from service.store import attempts, database
from service.store import retention as store
from service.store.attempts import Settlement
from tests.store.books import ACTOR, Books, order

DAYS = 91


@pytest.fixture
def settings(database: str, settings_from: Any) -> Any:  # noqa: ARG001 - the settings name the database
    return settings_from(payload_days=90)


def settled(books: Books, key: str, *, days: float = DAYS, state: State = State.SUCCEEDED, **changes: Any) -> str:
    """An effect that came to its end so many days ago."""
    [own] = books.accept(order(key, **changes))
    [attempt] = books.claim(own)
    books.settle(
        Settlement(
            id=own, attempt=attempt.number, state=state, fact=state.value, in_doubt=False, outcome={"charge": "ch_1"},
            provider="stripe", provider_ref=f"pi_{key}" if state is State.SUCCEEDED else None,
        )
    )  # fmt: skip
    age(books, own, days)
    return own


def age(books: Books, own: str, days: float) -> None:
    """As if all of it had happened so many days before."""
    books.run("alter table effects disable trigger user")
    books.run(
        "update effects set created_at = created_at - %s, first_sent_at = first_sent_at - %s, settled_at = settled_at - %s"
        " where id = %s",
        *[timedelta(days=days)] * 3,
        own,
    )
    books.run("alter table effects enable trigger user")


def prune(settings: Any, **options: Any) -> retention.Pruned:
    return retention.prune(settings, actor=ACTOR, door="cli", rest=lambda _: None, **options)


def test_an_old_request_goes_and_its_key_still_answers_the_same_effect(books, settings):
    asked = order("old")
    own = settled(books, "old")
    young = settled(books, "young", days=80)
    before = books.effect(own)
    assert retention.plan(settings).requests == 1
    done = prune(settings)
    assert (done.requests, done.complete, done.kept) == (1, True, {})
    after = books.effect(own)
    assert after.pop("request") is None
    assert before.pop("request") is not None
    assert after == before, "nothing else of it has changed"
    assert books.effect(young)["request"] is not None
    [again] = accept_alone([order("old", id=asked.id)], actor=ACTOR)
    assert (again.id, again.created, again.state) == (own, False, State.SUCCEEDED)
    with pytest.raises(DedupeConflict):
        accept_alone([order("old", amount=4201)], actor=ACTOR)
    assert books.effect(own)["request"] is None, "a repeat brings nothing back"


def test_a_plan_writes_nothing_and_a_run_does_what_the_plan_said(books, settings):
    for i in range(5):
        settled(books, f"k{i}")
    found = retention.plan(settings)
    assert (found.requests, books.one("select count(*) from effects where request is null")) == (5, 0)
    assert found.bytes > 0
    assert prune(settings).requests == 5
    assert retention.plan(settings).empty


def test_requests_are_kept_for_ever_when_the_days_are_none(books, settings_from):
    settled(books, "k", days=4000)
    settings = settings_from(payload_days=0)
    assert prune(settings).requests == 0
    assert retention.plan(settings).empty


def test_what_is_unsettled_is_never_touched_however_old(books, settings):
    [own] = books.accept(order("open"))
    age(books, own, 4000)
    assert prune(settings).requests == 0
    assert books.effect(own)["request"] is not None


def test_a_run_that_is_cut_short_goes_on_where_it_was(books, settings):
    for i in range(6):
        settled(books, f"k{i}", days=DAYS + i)
    cut = prune(settings, seconds=0)
    assert not cut.complete
    assert cut.requests + prune(settings).requests == 6
    assert prune(settings).requests == 0


@pytest.mark.parametrize("why", ["linked", "break", "operation", "event", "window"])
def test_what_may_still_be_needed_stays_until_it_is_not(books, settings, monkeypatch, why):
    own = settled(books, "needed")
    other = settled(books, "other")
    if why == "linked":
        money = {"amount": 100, "currency": "eur"}
        refund = order("refund", kind="refund", concerns=own, ready_when="settled", request={**money, "charge": own})
        [child] = books.accept(replace(refund, **money))
    elif why == "break":
        books.run("insert into breaks (class, subject, effect_id) values ('contradiction', %s, %s)", own, own)
    elif why == "operation":
        books.run("insert into operations (id, verb, state, selector, total, planned_by, expires_at, reason, started_by,"
                  " started_at) values (%s, 'replay', 'running', '{}', 1, 'me', now(), 'r', 'me', now())", own)  # fmt: skip
        books.run("insert into operation_items (operation_id, effect_id, position, seen_state, seen_attempt)"
                  " values (%s, %s, 1, 'parked', 1)", own, own)  # fmt: skip
    elif why == "event":
        books.run("insert into inbox (provider, event_id, type, object_id, object_type, event_at) values"
                  " ('stripe', 'evt_1', 'charge.updated', 'ch_1', 'charge', now())")  # fmt: skip
        books.run("update inbox set payment_intent = 'pi_needed'")
    else:
        monkeypatch.setattr(retention, "PROVIDER_WINDOW_SECONDS", (DAYS + 1) * 86400.0)
        age(books, other, 10)
    assert prune(settings).kept == {why: 1}
    assert books.effect(own)["request"] is not None
    assert books.effect(other)["request"] is None
    assert retention.plan(settings).kept == {why: 1}
    if why == "linked":
        [attempt] = books.claim(child)
        books.settle(
            Settlement(id=child, attempt=attempt.number, state=State.FAILED, fact="failed", in_doubt=False, outcome={})
        )
    elif why == "break":
        books.run("update breaks set closed_at = now(), closed_by = 'me'")
    elif why == "operation":
        books.run("update operations set state = 'done', finished_at = now()")
    elif why == "event":
        books.run("update inbox set processed_at = now(), result = 'agrees'")
    else:
        monkeypatch.undo()
    assert prune(settings).kept == {}
    assert books.effect(own)["request"] is None


def test_updates_stay_heap_only_so_that_no_index_grows(books, settings):
    """Each row's dead version leaves room in its own block for the next turn's."""
    for start in range(0, 900, 300):
        books.accept(*[order(f"k{i}", request={"amount": 4200, "currency": "eur", "description": "d" * 300})
                       for i in range(start, start + 300)])  # fmt: skip
    books.run("alter table effects disable trigger user")
    books.run("""update effects set state = 'succeeded', settled_at = now() - interval '91 days' + random() * interval '1 hour',
                 outcome = '{}', created_at = created_at - interval '91 days'""")
    books.run("alter table effects enable trigger user")
    books.run("delete from outbox")
    books.run("insert into journal (effect_id, fact, attempt, actor) select id, 'succeeded', 0, 'me' from effects")
    books.run("vacuum full effects")
    told = "select n_tup_upd as rows, n_tup_hot_upd as hot from pg_stat_all_tables where relname = 'effects'"
    before = _told(books, told, lambda row: row["rows"] >= 900)
    assert prune(settings).requests == 900
    after = _told(books, told, lambda row: row["rows"] >= before["rows"] + 900)
    assert after["hot"] - before["hot"] >= 0.9 * 900


def _told(books: Books, query: str, enough: Any) -> dict[str, Any]:
    """What the server's statistics say, once it has heard of the other sessions' work."""
    for _ in range(200):
        [row] = books.rows(query)
        if enough(row):
            return row
        books.run("select pg_sleep(0.1)")
    raise AssertionError(row)


def test_old_events_plans_and_items_go_and_how_an_operation_ended_stays(books, settings):
    own = settled(books, "k", days=1)
    ids = [str(order().id) for _ in range(3)]
    for id_, state, days, finished in zip(ids, ("planned", "done", "done"), (2, 100, 10), (None, 100, 10), strict=True):
        ended = timedelta(days=finished) if finished else None
        books.run(
            "insert into operations (id, verb, state, selector, total, planned_by, planned_at, expires_at, reason,"
            " started_by, started_at, finished_at) select %s, 'replay', %s, '{}', 1, 'me', now() - %s, now() - %s, x, x,"
            " now() + x::interval, now() - %s::interval from (values (%s::text)) v (x)",
            id_, state, timedelta(days=days), timedelta(days=days), ended, "0" if finished else None,
        )  # fmt: skip
        books.run("insert into operation_items (operation_id, effect_id, position, seen_state, seen_attempt, result, done_at,"
                  " ended) values (%s, %s, 1, 'parked', 1, 'done', now(), 'succeeded')", id_, own)  # fmt: skip
    for number, days in enumerate((100, 50, 10)):
        books.run("insert into inbox (provider, event_id, type, object_id, object_type, event_at, received_at, processed_at,"
                  " result) values ('stripe', %s, 't', 'o', 'charge', now(), now() - %s, now() - %s, 'agrees')",
                  f"evt_{number}", timedelta(days=days), timedelta(days=days))  # fmt: skip
    found = retention.plan(settings)
    assert (found.events, found.plans, found.items) == (1, 1, 1)
    done = prune(settings)
    assert (done.events, done.items) == (1, 2)
    assert [r["id"] for r in books.rows("select id::text from operations order by planned_at")] == ids[1:]
    assert books.rows("select operation_id::text from operation_items") == [{"operation_id": ids[2]}]
    assert books.one("select detail ->> 'succeeded' from actions where verb = 'items_purged'") == "1"


# --- erase ----------------------------------------------------------------------------------------------------------


def test_an_erasure_takes_what_was_written_to_an_address_and_says_who_and_why(books):
    mine = settled(books, "a", kind="email", request={"to": "Ada@Example.test", "subject": "Hi", "text": "x"}, days=0)
    charge = settled(
        books, "b", request={"amount": 4200, "currency": "eur", "receipt_email": "ada@example.test"}, days=0
    )
    other = settled(books, "c", kind="email", request={"to": "bob@example.test", "subject": "Hi"}, days=0)
    [waiting] = books.accept(order("d", kind="email"))
    found = erasure.plan(to=" ada@EXAMPLE.test ")
    assert set(found.ids) == {mine, charge}
    assert found.unsettled == (waiting,)
    assert books.one("select count(*) from effects where request is null") == 0
    assert set(erasure.erase(found.ids, reason="request 17", actor="cli:me", to="ada@example.test")) == {mine, charge}
    assert books.effect(mine)["request"] is None
    assert books.effect(other)["request"] is not None
    assert books.effect(waiting)["request"] is not None
    for own in (mine, charge):
        [fact] = books.rows("select actor, evidence from journal where effect_id = %s and fact = 'erased'", own)
        assert fact == {"actor": "cli:me", "evidence": {"reason": "request 17"}}
    assert erasure.erase([waiting], reason="r", actor="me") == (), "the statement itself refuses what is not settled"
    again = erasure.plan([mine])
    assert (again.ids, again.erased_before) == ((), (mine,))


def test_an_erasure_by_id_takes_the_receipts_that_the_charge_has_caused(books):
    charge = settled(books, "b", days=0)
    receipt = settled(books, "r", kind="email", caused_by=charge, days=0)
    assert set(erasure.plan([charge]).ids) == {charge, receipt}


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (erasure.plan, "id"),
        (lambda: erasure.plan(["x"], to="ada@example.test"), "id"),
        (lambda: erasure.plan(to="ada"), "to"),
        (lambda: erasure.erase(["x"], reason=" ", actor="me"), "reason"),
        (lambda: erasure.erase(["x"], reason="for ada@example.test", actor="me"), "reason"),
    ],
)
def test_an_erasure_is_refused_in_words(call, field):
    with pytest.raises(ValidationError) as refused:
        call()
    assert refused.value.field == field


def test_a_purged_charge_can_still_be_asked_after(books, settings):
    own = settled(books, "k")
    prune(settings)
    with database.statement() as connection:
        attempt = attempts.standing(connection, own)
        assert store.kept(connection) == {}
    assert attempt.request == {"amount": 4200, "currency": "eur"}
