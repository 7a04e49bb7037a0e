"""Customers, payment methods, slow banks, search, balance and lists of the fake keep to Stripe's rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, running
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures among them
    charges,
    confirm,
    create,
    event_types,
    fresh_effect,
    killable_fake,
    one_server,
    paid,
    refund,
    sdk,
    shared_fake,
    summary,
)


@pytest.fixture(name="strict", scope="module")
def strict_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("strict"), "--strict-accounts") as fake:
        yield fake


def customer_with(fake: FakeServer, card: str = "pm_card_visa") -> tuple[str, str]:
    v1 = sdk(fake).v1
    customer = v1.customers.create({"email": "ada@example.test", "metadata": {"kind": "test"}})
    return customer.id, v1.payment_methods.attach(card, {"customer": customer.id}).id


# --- banks and customers that answer later -------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "end"),
    [
        ("pm_usBankAccount_success", "succeeded"),
        ("pm_success_de", "succeeded"),
        ("pm_usBankAccount_accountClosed", "requires_payment_method"),
        ("pm_usBankAccount_noAccount", "requires_payment_method"),
    ],
)
def test_a_bank_debit_is_processing_until_the_bank_has_answered(
    fake: FakeServer, effect: str, account: str, end: str
) -> None:
    intent = paid(fake, effect, payment_method=account)
    assert (intent.status, intent.amount_received, charges(fake, effect)) == ("processing", 0, 0)
    pending = sdk(fake).v1.charges.retrieve(str(intent.latest_charge))
    assert (pending.status, pending.captured, pending.balance_transaction) == ("pending", False, None)
    assert fake.admin(f"intents/{intent.id}/finish", {})["status"] == end
    assert sdk(fake).v1.payment_intents.retrieve(intent.id).status == end
    assert charges(fake, effect) == (end == "succeeded")
    last = "payment_intent.succeeded" if end == "succeeded" else "payment_intent.payment_failed"
    assert event_types(fake, intent.id) == ["payment_intent.created", "payment_intent.processing", last]
    event = sdk(fake).v1.events.list({"limit": 1}).data[0]
    assert event.request is not None
    assert (event.request.id, event.request.idempotency_key) == (None, None)


def test_what_the_bank_says_can_be_chosen_and_is_said_once(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect, payment_method="pm_usBankAccount_processing")
    fake.admin(f"intents/{intent.id}/finish", {"as": "failed"})
    failed = sdk(fake).v1.payment_intents.retrieve(intent.id)
    assert failed.last_payment_error is not None
    with pytest.raises(OSError, match="422"):
        fake.admin(f"intents/{intent.id}/finish", {"as": "succeeded"})
    assert charges(fake, effect) == 0


@pytest.mark.parametrize(
    ("end", "status", "money"),
    [("succeeded", "succeeded", 1), ("failed", "requires_payment_method", 0), ("canceled", "canceled", 0)],
)
def test_the_customer_ends_what_requires_action(
    fake: FakeServer, effect: str, end: str, status: str, money: int
) -> None:
    intent = paid(fake, effect, payment_method="pm_card_authenticationRequired")
    assert intent.status == "requires_action"
    fake.admin(f"intents/{intent.id}/finish", {"as": end})
    now = sdk(fake).v1.payment_intents.retrieve(intent.id)
    assert (now.status, charges(fake, effect)) == (status, money)
    if end == "failed":
        assert now.last_payment_error is not None
        assert now.last_payment_error.code == "payment_intent_authentication_failure"


# --- payment methods and customers ---------------------------------------------------------------


def test_an_unattached_payment_method_is_used_up_by_its_first_attempt(fake: FakeServer, effect: str) -> None:
    first = paid(fake, effect, payment_method="pm_card_visa")
    with pytest.raises(stripe.InvalidRequestError, match="It may not be used again") as refused:
        paid(fake, effect, key=f"{effect}:2", payment_method=str(first.payment_method))
    assert (refused.value.http_status, refused.value.code) == (400, None)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        sdk(fake).v1.payment_methods.attach(str(first.payment_method), {"customer": "cus_1"})
    assert charges(fake, effect) == 1


def test_a_declined_attempt_uses_it_up_too(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect, payment_method="pm_card_chargeDeclined")
    with pytest.raises(stripe.CardError):
        confirm(fake, intent.id, f"{effect}:confirm:1")
    with pytest.raises(stripe.InvalidRequestError, match="previously used"):
        confirm(fake, intent.id, f"{effect}:confirm:2", payment_method=str(intent.payment_method))


def test_one_payment_method_in_two_intents_pays_the_one_that_is_first(fake: FakeServer, effect: str) -> None:
    one = create(fake, effect, payment_method="pm_card_visa")
    two = create(fake, effect, key=f"{effect}:2", payment_method=str(one.payment_method))
    assert confirm(fake, two.id, f"{effect}:two").status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="previously used"):
        confirm(fake, one.id, f"{effect}:one")
    assert charges(fake, effect) == 1


def test_an_attached_payment_method_pays_again_and_for_its_customer_only(strict: FakeServer, effect: str) -> None:
    customer, card = customer_with(strict)
    for n in range(2):
        assert paid(strict, effect, key=f"{effect}:{n}", customer=customer, payment_method=card).status == "succeeded"
    other, _ = customer_with(strict)
    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method") as foreign:
        paid(strict, effect, key=f"{effect}:3", customer=other, payment_method=card)
    assert foreign.value.param == "payment_method"
    with pytest.raises(stripe.InvalidRequestError, match=f"belongs to the Customer {customer}"):
        paid(strict, effect, key=f"{effect}:4", customer=None, payment_method=card)
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        sdk(strict).v1.payment_methods.attach(card, {"customer": other})
    assert charges(strict, effect) == 2


def test_a_detached_payment_method_is_gone_for_good(strict: FakeServer, effect: str) -> None:
    customer, card = customer_with(strict)
    v1 = sdk(strict).v1
    assert v1.payment_methods.detach(card).customer is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        v1.payment_methods.attach(card, {"customer": customer})
    with pytest.raises(stripe.InvalidRequestError, match="detached from a Customer"):
        paid(strict, effect, customer=customer, payment_method=card)
    with pytest.raises(stripe.InvalidRequestError, match="not attached"):
        v1.payment_methods.detach(card)


def test_each_use_of_a_test_name_is_a_payment_method_of_its_own(strict: FakeServer, effect: str) -> None:
    customer, first = customer_with(strict)
    v1 = sdk(strict).v1
    second = v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    assert first != second
    assert [each.id for each in v1.customers.payment_methods.list(customer)] == [second, first]
    assert [each.id for each in v1.payment_methods.list({"customer": customer, "type": "card"})] == [second, first]
    shown = v1.payment_methods.retrieve(first, {"expand": ["customer"]})
    assert isinstance(shown.customer, stripe.Customer)
    assert not [name for name in shown.to_dict() if name.startswith("_")]
    assert [each.id for each in v1.customers.list({"email": "ada@example.test", "limit": 1})] == [customer]
    assert effect


def test_a_bad_card_is_declined_when_it_is_attached_and_one_only_when_it_is_charged(
    strict: FakeServer, effect: str
) -> None:
    customer, failing = customer_with(strict, "pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError) as declined:
        sdk(strict).v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": customer})
    assert declined.value.code == "card_declined"
    with pytest.raises(stripe.CardError):
        paid(strict, effect, customer=customer, payment_method=failing)


def test_setup_future_usage_attaches_what_has_paid(fake: FakeServer, effect: str) -> None:
    customer, _ = customer_with(fake)
    wish: dict[str, Any] = {"customer": customer, "setup_future_usage": "off_session"}
    first = paid(fake, effect, payment_method="pm_card_visa", **wish)
    card = str(first.payment_method)
    assert sdk(fake).v1.payment_methods.retrieve(card).customer == customer
    assert paid(fake, effect, key=f"{effect}:2", customer=customer, payment_method=card).status == "succeeded"


def test_a_strict_account_knows_only_what_was_created(strict: FakeServer, effect: str) -> None:
    customer, _ = customer_with(strict)
    for wish, param in (({"customer": "cus_1"}, "customer"), ({"customer": customer}, "payment_method")):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            create(strict, effect, key=f"{effect}:{param}", **wish)
        assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, "resource_missing", param)
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        sdk(strict).v1.payment_methods.attach("pm_card_visa", {"customer": "cus_1"})


def test_a_lenient_account_takes_any_customer_and_any_saved_card_again_and_again(fake: FakeServer, effect: str) -> None:
    for n in range(3):
        assert paid(fake, effect, key=f"{effect}:{n}", customer=f"cus_{n}", payment_method="pm_saved_by_nobody").id


def test_strictness_is_a_switch_of_the_back_door_too(own_fake: FakeServer, effect: str) -> None:
    assert own_fake.admin("settings", {"strict_accounts": True})["strict_accounts"] is True
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        create(own_fake, effect)
    own_fake.kill()
    own_fake.start()
    assert own_fake.admin("settings")["strict_accounts"] is True


# --- search, behind ------------------------------------------------------------------------------


def found(fake: FakeServer, query: str, **more: Any) -> list[str]:
    return [each.id for each in sdk(fake).v1.payment_intents.search({"query": query, **more}).auto_paging_iter()]


def test_search_finds_by_metadata_once_the_index_has_caught_up(own_fake: FakeServer, effect: str) -> None:
    made = [paid(own_fake, effect, key=f"{effect}:{n}").id for n in range(3)]
    paid(own_fake, "another")
    query = f"metadata['effect_id']:'{effect}'"
    assert found(own_fake, query) == []
    own_fake.admin("clock", {"advance_seconds": 61})
    assert sorted(found(own_fake, query)) == sorted(made)
    assert sorted(found(own_fake, query, limit=1)) == sorted(made)
    assert found(own_fake, f"{query} AND status:'canceled'") == []
    assert len(found(own_fake, 'status:"succeeded" amount>4000')) == 4
    assert len(found(own_fake, f"metadata['effect_id']:'another' OR {query}")) == 4
    assert found(own_fake, "-status:'succeeded'") == []


def test_search_sees_a_changed_object_as_it_was(own_fake: FakeServer, effect: str) -> None:
    own_fake.admin("settings", {"search_lag_seconds": 3600})
    intent = create(own_fake, effect)
    own_fake.admin("clock", {"advance_seconds": 3000})
    confirm(own_fake, intent.id, f"{effect}:confirm")
    own_fake.admin("clock", {"advance_seconds": 1000})
    assert found(own_fake, "status:'requires_confirmation'") == [intent.id]
    own_fake.admin("clock", {"advance_seconds": 3000})
    assert found(own_fake, "status:'succeeded'") == [intent.id]


@pytest.mark.parametrize("query", ["", "colour:'blue'", "metadata['a']:", "status>'a'", "a b c"])
def test_a_query_that_makes_no_sense_is_refused(fake: FakeServer, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        found(fake, query)
    assert (refused.value.http_status, refused.value.param) == (400, "query")


@pytest.mark.parametrize("wish", [{"search_lag_seconds": 3601}, {"refund_status": "gone"}, {"colour": "blue"}])
def test_a_setting_that_does_not_exist_is_refused(fake: FakeServer, wish: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="422"):
        fake.admin("settings", wish)


# --- the balance ---------------------------------------------------------------------------------


def test_every_movement_of_money_is_a_line_of_the_balance_with_fee_and_net(own_fake: FakeServer, effect: str) -> None:
    intent = paid(own_fake, effect)
    back = refund(own_fake, intent, f"{effect}-back", amount=1000)
    v1 = sdk(own_fake).v1
    given, taken = v1.balance_transactions.list().data
    assert (taken.amount, taken.fee, taken.net, taken.source) == (4200, 84, 4116, intent.latest_charge)
    assert (taken.type, taken.reporting_category, taken.fee_details[0].amount) == ("charge", "charge", 84)
    assert (given.amount, given.fee, given.net, given.source) == (-1000, 0, -1000, back.id)
    assert (given.type, given.reporting_category) == ("refund", "refund")
    for wish, expected in (
        ({"type": "refund"}, [given.id]),
        ({"source": str(intent.latest_charge)}, [taken.id]),
        ({"created": {"gt": taken.created + 60}}, []),
        ({"currency": "usd"}, []),
    ):
        assert [each.id for each in v1.balance_transactions.list(wish)] == expected  # type: ignore[arg-type]
    expanded = v1.balance_transactions.retrieve(given.id, {"expand": ["source.charge"]})
    assert isinstance(expanded.source, stripe.Refund)
    assert isinstance(expanded.source.charge, stripe.Charge)
    assert taken.status == "pending"
    own_fake.advance(hours=8 * 24)
    assert v1.balance_transactions.retrieve(taken.id).status == "available"


# --- lists, expansion, refusals ------------------------------------------------------------------


def test_lists_are_paged_both_ways(fake: FakeServer, effect: str) -> None:
    customer = f"cus_{effect}"
    made = [create(fake, effect, key=f"{effect}:{n}", customer=customer).id for n in range(5)][::-1]
    intents = sdk(fake).v1.payment_intents
    assert [each.id for each in intents.list({"customer": customer, "starting_after": made[1], "limit": 2})] == made[
        2:4
    ]
    before = intents.list({"customer": customer, "ending_before": made[3], "limit": 2})
    assert ([each.id for each in before], before.has_more) == (made[1:3], True)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"starting_after": "pi_nobody"}, "starting_after"),
        ({"starting_after": "pi_1", "ending_before": "pi_1"}, "ending_before"),
        ({"created": {"after": 1}}, "created[after]"),
        ({"created": {"gte": "yesterday"}}, "created[gte]"),
        ({"expand": ["data.colour"]}, "expand"),
        ({"expand": ["data.latest_charge.balance_transaction.source.charge"]}, "expand"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_wrong_list_is_refused_by_name(fake: FakeServer, effect: str, wish: dict[str, Any], param: str) -> None:
    paid(fake, effect)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        sdk(fake).v1.payment_intents.list(wish)  # type: ignore[arg-type]
    assert (refused.value.http_status, refused.value.param) == (400, param)


def test_lists_expand_what_is_in_them(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect, customer=f"cus_{effect}")
    refund(fake, intent, f"{effect}-back", amount=10)
    (shown,) = sdk(fake).v1.payment_intents.list(
        {"customer": f"cus_{effect}", "expand": ["data.latest_charge.refunds", "data.payment_method", "data.customer"]}
    )
    assert isinstance(shown.latest_charge, stripe.Charge)
    assert shown.latest_charge.refunds is not None
    assert [each.amount for each in shown.latest_charge.refunds] == [10]
    assert isinstance(shown.payment_method, stripe.PaymentMethod)
    assert shown.customer == f"cus_{effect}"  # nobody created it: there is nothing to show


@pytest.mark.parametrize(
    "kind", ["payment_intents", "charges", "refunds", "balance_transactions", "events", "customers", "payment_methods"]
)
def test_what_is_not_there_is_404_and_its_error_is_in_order(fake: FakeServer, kind: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such") as missing:
        getattr(sdk(fake).v1, kind).retrieve("xx_nobody")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    names = list((missing.value.json_body or {})["error"])
    assert names == sorted(names)


def test_a_folder_of_an_older_fake_is_taken_over(tmp_path: Path, effect: str) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "stripe.sqlite3") as old:
        old.executescript(
            "CREATE TABLE objects (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, object TEXT NOT NULL,"
            " created INTEGER NOT NULL, customer TEXT, payment_intent TEXT, type TEXT, body TEXT NOT NULL);"
            "CREATE TABLE ledger (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, amount INTEGER NOT NULL,"
            " currency TEXT NOT NULL, payment_intent TEXT NOT NULL, charge TEXT NOT NULL, idempotency_key TEXT,"
            " metadata TEXT NOT NULL, at REAL NOT NULL);"
        )
    with running("stripe", tmp_path) as fake:
        refund(fake, paid(fake, effect), f"{effect}-back")
        assert summary(fake, f"{effect}-back")["refunds"] == 1
