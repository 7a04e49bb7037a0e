"""Every way to call a task that cannot be exactly-once says so, and names the way that can; nothing is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery import chain, chord

from service.core.effect import Policy
from service.core.errors import NotExactlyOnce, ValidationError
from tasks import charge, email
from tasks.effect_task import ORDERS_MAX

PAY = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": "pm_1"}
MAIL = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}
KEY = "order:seventeen:charge"


@pytest.fixture(autouse=True)
def no_database(monkeypatch):
    """Whatever gets as far as the database fails loudly here: nothing in this file may."""
    monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize("task", [charge, email])
def test_a_call_without_a_dedupe_key_says_what_a_key_looks_like(task):
    kwargs = PAY if task is charge else MAIL
    for call in (lambda: task.apply_async(kwargs=kwargs), lambda: task.delay(**kwargs), task.s(**kwargs).apply_async):
        with pytest.raises(ValidationError, match="dedupe_key='order:17:charge'") as caught:
            call()
        assert caught.value.field == "dedupe_key"


@pytest.mark.parametrize("args", [(4200,), [4200, "eur"]])
def test_a_request_is_given_by_name(args):
    with pytest.raises(ValidationError, match="by name") as caught:
        charge.apply_async(args, PAY, dedupe_key=KEY)
    assert caught.value.field == "args"
    with pytest.raises(ValidationError, match="by name"):
        charge.delay(*args, dedupe_key=KEY)


@pytest.mark.parametrize(
    "option", ["retry", "expires", "routing_key", "exchange", "serializer", "headers", "compression", "soft_time_limit"]
)
def test_an_option_that_would_be_ignored_is_refused_by_name(option):
    with pytest.raises(ValidationError, match=option) as caught:
        charge.apply_async(kwargs=PAY, dedupe_key=KEY, **{option: 1})
    assert caught.value.field == option


@pytest.mark.parametrize("option", ["link", "link_error", "chain", "chord"])
def test_a_callback_is_refused_with_the_alternative(option):
    with pytest.raises(NotExactlyOnce, match="Accept the next effect") as caught:
        charge.apply_async(kwargs=PAY, dedupe_key=KEY, **{option: [email.si(**MAIL)]})
    assert caught.value.field == option


def test_a_chain_that_begins_with_an_effect_is_refused():
    with pytest.raises(NotExactlyOnce, match="chain"):
        chain(charge.si(**PAY).set(dedupe_key=KEY), email.si(**MAIL).set(dedupe_key=KEY)).apply_async()


def test_a_chord_of_effects_is_refused():
    header = [charge.si(**PAY).set(dedupe_key=f"{KEY}:{i}") for i in range(2)]
    with pytest.raises(NotExactlyOnce, match="chord"):
        chord(header, email.si(**MAIL).set(dedupe_key=KEY)).apply_async()


def test_a_signature_with_a_callback_is_refused():
    with pytest.raises(NotExactlyOnce, match="link"):
        charge.si(**PAY).set(dedupe_key=KEY, link=[email.si(**MAIL)]).apply_async()


@pytest.mark.parametrize(
    ("call", "alternative"),
    [
        (lambda: charge.apply(kwargs=PAY), "apply_async"),
        (charge.retry, "outbox"),
        (lambda: charge.replace(email.s()), "key of its own"),
        (lambda: charge.s(**PAY).apply(), "apply_async"),
    ],
    ids=["apply", "retry", "replace", "signature.apply"],
)
def test_what_would_bypass_the_books_is_refused_with_the_alternative(call, alternative):
    with pytest.raises(NotExactlyOnce, match=alternative):
        call()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"eta": datetime(2030, 1, 1)}, "eta"),  # noqa: DTZ001 - the point
        ({"eta": "2030-01-01"}, "eta"),
        ({"eta": 5}, "eta"),
        ({"eta": datetime.now(UTC), "countdown": 1}, "eta"),
        ({"countdown": -1}, "countdown"),
        ({"countdown": True}, "countdown"),
        ({"countdown": "5"}, "countdown"),
        ({"countdown": float("nan")}, "countdown"),
        ({"countdown": float("inf")}, "countdown"),
        ({"countdown": 10**9}, "countdown"),
        ({"priority": 10}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": 1.0}, "priority"),
        ({"priority": True}, "priority"),
        ({"queue": "nowhere"}, "queue"),
        ({"queue": ""}, "queue"),
        ({"queue": "a b"}, "queue"),
        ({"queue": 5}, "queue"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"session": object()}, "session"),
        ({"session": "postgresql://x"}, "session"),
    ],
)
def test_a_wrong_option_is_named(options, field):
    with pytest.raises(ValidationError) as caught:
        charge.apply_async(kwargs=PAY, dedupe_key=KEY, **options)
    assert caught.value.field == field


def test_what_is_right_becomes_an_order():
    eta = datetime.now(UTC) + timedelta(hours=1)
    order = charge.order(None, PAY, dedupe_key=KEY, eta=eta, priority=9, queue="email", tenant="shop")
    assert (order.kind, order.dedupe_key, order.tenant) == ("charge", KEY, "shop")
    assert (order.not_before, order.priority, order.lane) == (eta, 9, "email")
    assert (order.amount, order.currency, order.policy) == (4200, "eur", Policy.AT_MOST_ONCE)
    plain = charge.order(None, PAY, dedupe_key=KEY)
    assert (plain.not_before, plain.priority, plain.lane, plain.tenant) == (None, 0, "charge", "default")
    soon = charge.order(None, PAY, dedupe_key=KEY, countdown=60)
    assert (soon.not_before, soon.after_seconds) == (None, 60.0)  # whose clock that is, the store decides


def test_two_orders_of_one_request_differ_in_nothing_but_the_id():
    one, other = (charge.order(None, kwargs, dedupe_key=KEY) for kwargs in (PAY, dict(reversed(PAY.items()))))
    assert one.id != other.id
    assert one.fingerprint == other.fingerprint


def test_ids_grow_with_time():
    ids = [charge.order(None, PAY, dedupe_key=KEY).id for _ in range(50)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 50


def test_a_default_that_is_spelled_out_is_the_same_request():
    said = charge.order(None, {**PAY, "off_session": True, "metadata": {}}, dedupe_key=KEY)
    assert said.fingerprint == charge.order(None, PAY, dedupe_key=KEY).fingerprint
    mail = email.order(None, {**MAIL, "policy": "at_least_once"}, dedupe_key=KEY)
    assert mail.fingerprint == email.order(None, MAIL, dedupe_key=KEY).fingerprint


def test_the_sender_of_a_letter_is_frozen_when_it_is_accepted(settings_from):
    settings_from(email_sender="one@shop.test")
    first = email.order(None, MAIL, dedupe_key=KEY)
    settings_from(email_sender="two@shop.test")
    second = email.order(None, MAIL, dedupe_key=KEY)
    assert [order.request["sender"] for order in (first, second)] == ["one@shop.test", "two@shop.test"]
    assert first.fingerprint == second.fingerprint, "the caller said the same"
    named = email.order(None, {**MAIL, "sender": "me@shop.test"}, dedupe_key=KEY)
    assert named.request["sender"] == "me@shop.test"


def test_a_bulk_has_a_limit_and_names_no_effect_of_its_own():
    with pytest.raises(ValidationError, match="limit is 10000"):
        charge.apply_many([{"kwargs": PAY, "dedupe_key": KEY}] * (ORDERS_MAX + 1))
    with pytest.raises(ValidationError, match="dedupe_key"):
        charge.apply_many([{"kwargs": PAY}])
    assert charge.apply_many([]) == []


def test_calling_an_effect_like_a_function_is_refused():
    with pytest.raises(NotExactlyOnce, match="apply_async"):
        charge(**PAY)


@pytest.mark.parametrize("way", ["map", "starmap", "chunks"])
def test_ways_that_accept_nothing_are_refused(way):
    with pytest.raises(NotExactlyOnce, match="apply_many"):
        getattr(charge, way)([1, 2], 2)
