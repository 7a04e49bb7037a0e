"""The Stripe fake keeps Stripe's promises, asked by the real SDK over real sockets, and breaks them when told to."""

from __future__ import annotations

import threading
import typing
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, wait_until
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures among them
    charges,
    confirm,
    create,
    fresh_effect,
    headers,
    killable_fake,
    one_server,
    params,
    sdk,
    sent,
    shared_fake,
)

FIELDS_ALWAYS_PRESENT = ("id", "object", "amount", "currency", "status", "client_secret", "livemode", "metadata")


# --- the two steps, and what they leave behind ---------------------------------------------------


def test_create_moves_no_money_and_confirm_moves_it_once(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect)
    assert (intent.status, charges(fake, effect)) == ("requires_confirmation", 0)
    paid = confirm(fake, intent.id, f"{effect}:confirm")
    assert (paid.status, paid.amount_received, charges(fake, effect)) == ("succeeded", 4200, 1)
    row = next(r for r in fake.admin("ledger")["money"] if r["payment_intent"] == intent.id)
    assert row["charge"] == paid.latest_charge
    assert (row["kind"], row["amount"], row["currency"]) == ("charge", 4200, "eur")
    assert row["idempotency_key"] == f"{effect}:confirm"
    assert sdk(fake).v1.payment_intents.retrieve(intent.id).latest_charge == paid.latest_charge


def test_a_second_confirm_under_another_key_is_refused_because_the_intent_succeeded(
    fake: FakeServer, effect: str
) -> None:
    intent = create(fake, effect, confirm=True, off_session=True)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        confirm(fake, intent.id, f"{effect}:again")
    assert refused.value.code == "payment_intent_unexpected_state"
    assert refused.value.error.payment_intent.status == "succeeded"
    assert charges(fake, effect) == 1


def test_the_lookups_after_a_lost_answer_find_the_charge(fake: FakeServer, effect: str) -> None:
    customer = f"cus_{effect}"
    intent = create(fake, effect, customer=customer, confirm=True)
    v1 = sdk(fake).v1
    found = v1.payment_intents.list({"customer": customer, "created": {"gte": intent.created}}).data
    assert [item.id for item in found] == [intent.id]
    events = v1.events.list({"types": ["charge.succeeded", "payment_intent.succeeded"], "limit": 100}).data
    mine = [event for event in events if event.request and event.request.idempotency_key == f"{effect}:create"]
    assert {event.type for event in mine} == {"charge.succeeded", "payment_intent.succeeded"}
    assert v1.charges.retrieve(str(intent.latest_charge)).paid
    expanded = v1.payment_intents.retrieve(intent.id, {"expand": ["latest_charge"]})
    assert isinstance(expanded.latest_charge, stripe.Charge)
    assert expanded.latest_charge.id == intent.latest_charge


def test_lists_are_paged_newest_first(fake: FakeServer, effect: str) -> None:
    customer = f"cus_{effect}"
    made = [create(fake, effect, key=f"{effect}:{n}", customer=customer).id for n in range(5)]
    listed = sdk(fake).v1.payment_intents.list({"customer": customer, "limit": 2})
    assert [item.id for item in listed.auto_paging_iter()] == made[::-1]


def test_objects_carry_what_the_sdk_declares_as_always_present(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect, confirm=True)
    charge = sdk(fake).v1.charges.retrieve(str(intent.latest_charge))
    for thing in (intent, charge):
        required = [
            name
            for name, hint in type(thing).__annotations__.items()
            if not name.startswith(("_", "OBJECT"))
            and typing.get_origin(hint) is not typing.ClassVar
            and type(None) not in typing.get_args(hint)
        ]
        assert [name for name in required if name not in thing] == []
    assert intent.livemode is False
    assert all(name in intent for name in FIELDS_ALWAYS_PRESENT)


def test_manual_capture_moves_money_at_the_capture_and_a_canceled_intent_never(fake: FakeServer, effect: str) -> None:
    held = create(fake, effect, confirm=True, capture_method="manual")
    assert (held.status, charges(fake, effect)) == ("requires_capture", 0)
    assert sdk(fake).v1.payment_intents.capture(held.id).status == "succeeded"
    assert charges(fake, effect) == 1
    other = create(fake, effect, key=f"{effect}:other")
    assert sdk(fake).v1.payment_intents.cancel(other.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        confirm(fake, other.id, f"{effect}:confirm-canceled")
    assert charges(fake, effect) == 1


# --- the life of a key ---------------------------------------------------------------------------


def test_the_same_key_replays_the_first_answer_and_marks_it(fake: FakeServer, effect: str) -> None:
    first = create(fake, effect, confirm=True)
    second = create(fake, effect, confirm=True)
    assert second.id == first.id
    assert charges(fake, effect) == 1
    one, two = headers(first), headers(second)
    assert one["original-request"] == one["request-id"] == two["original-request"] != two["request-id"]
    assert "idempotent-replayed" not in one
    assert two["idempotent-replayed"] == "true"
    assert two["idempotency-key"] == f"{effect}:create"
    assert one["stripe-version"].startswith("20")
    assert [(row["status"], row["replayed"]) for row in sent(fake, effect)] == [(200, False), (200, True)]


def test_the_order_of_parameters_does_not_matter_to_a_key(fake: FakeServer, effect: str) -> None:
    options: Any = {"idempotency_key": f"{effect}:create"}
    first = sdk(fake).v1.payment_intents.create(params(effect), options)
    turned = dict(reversed(params(effect).items()))
    assert sdk(fake).v1.payment_intents.create(turned, options).id == first.id


def test_a_key_with_other_parameters_is_an_idempotency_error(fake: FakeServer, effect: str) -> None:
    create(fake, effect, confirm=True)
    with pytest.raises(stripe.IdempotencyError, match="same parameters they were first used with") as refused:
        create(fake, effect, confirm=True, amount=4300)
    assert (refused.value.http_status, refused.value.code) == (400, None)
    assert charges(fake, effect) == 1


def test_a_key_on_another_endpoint_is_refused_naming_both(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect)
    with pytest.raises(stripe.IdempotencyError, match=f"/{intent.id}/confirm' vs '/v1/payment_intents'"):
        confirm(fake, intent.id, f"{effect}:create")
    assert charges(fake, effect) == 0


def test_a_key_in_flight_is_a_conflict_until_the_first_request_is_answered(fake: FakeServer, effect: str) -> None:
    fake.fault("barrier", route="create", key=effect)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(create, fake, effect, confirm=True)
        wait_until(lambda: fake.holding() == 1, "the first request at the barrier")
        with pytest.raises(stripe.APIError) as conflict:
            create(fake, effect, confirm=True)
        assert conflict.value.http_status == 409
        assert conflict.value.error.code == "idempotency_key_in_use"
        fake.admin("release", {})
        assert first.result(10).status == "succeeded"
    replayed = create(fake, effect, confirm=True)
    assert headers(replayed)["idempotent-replayed"] == "true"
    assert charges(fake, effect) == 1


def test_many_at_once_under_one_key_charge_once(fake: FakeServer, effect: str) -> None:
    start = threading.Barrier(12)

    def race() -> int:
        start.wait(10)
        try:
            create(fake, effect, confirm=True)
        except stripe.APIError as error:
            return error.http_status or 0
        return 200

    with ThreadPoolExecutor(12) as pool:
        statuses = [future.result(20) for future in [pool.submit(race) for _ in range(12)]]
    assert set(statuses) <= {200, 409}
    assert charges(fake, effect) == 1


def test_an_expired_key_is_forgotten_and_charges_again(own_fake: FakeServer, effect: str) -> None:
    first = create(own_fake, effect, confirm=True)
    own_fake.advance(hours=23.9)
    assert create(own_fake, effect, confirm=True).id == first.id
    own_fake.advance(hours=0.2)
    second = create(own_fake, effect, confirm=True)
    assert second.id != first.id
    assert "idempotent-replayed" not in headers(second)
    assert charges(own_fake, effect) == 2
    assert own_fake.admin("ledger")["summary"]["doubled"] == [effect]


@pytest.mark.parametrize("key", [lambda: {"idempotency_key": uuid.uuid4().hex}, dict], ids=["new key", "no key"])
def test_a_wrong_client_is_charged_twice(fake: FakeServer, effect: str, key: Callable[[], Any]) -> None:
    for _ in range(2):
        sdk(fake).v1.payment_intents.create(params(effect, confirm=True), key())
    assert charges(fake, effect) == 2


def test_a_connected_account_has_keys_of_its_own(fake: FakeServer, effect: str) -> None:
    create(fake, effect)
    options: Any = {"idempotency_key": f"{effect}:create", "stripe_account": "acct_other"}
    other = sdk(fake).v1.payment_intents.create(params(effect, amount=999), options)
    assert other.amount == 999


# --- what is kept under a key, and what is not ---------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"colour": "blue"}, "parameter_unknown", "colour"),
        ({"amount": None}, "parameter_missing", "amount"),
        ({"amount": "many"}, "parameter_invalid_integer", "amount"),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"currency": "zzz"}, None, "currency"),
        ({"off_session": True}, None, "off_session"),
    ],
)
def test_a_wrong_parameter_is_named_and_leaves_the_key_free(
    fake: FakeServer, effect: str, wrong: dict[str, Any], code: str | None, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        create(fake, effect, **wrong)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert "idempotent-replayed" not in headers(create(fake, effect))


def test_a_business_rule_is_kept_under_the_key(fake: FakeServer, effect: str) -> None:
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            create(fake, effect, amount=49)
        assert refused.value.code == "amount_too_small"
        assert (refused.value.headers or {}).get("Idempotent-Replayed") == replayed
    with pytest.raises(stripe.IdempotencyError):
        create(fake, effect, amount=4200)


def test_unknown_objects_cards_and_routes_are_not_found(fake: FakeServer, effect: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        sdk(fake).v1.payment_intents.retrieve("pi_nobody")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as card:
        create(fake, effect, payment_method="pm_card_unheardOf")
    assert (card.value.http_status, card.value.code, card.value.param) == (400, "resource_missing", "payment_method")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        sdk(fake).v1.tax_codes.list()


def test_a_wrong_api_key_is_refused_in_front_of_the_key(fake: FakeServer, effect: str) -> None:
    with pytest.raises(stripe.AuthenticationError):
        sdk(fake, key="sk_wrong").v1.payment_intents.create(params(effect), {"idempotency_key": f"{effect}:create"})
    assert "idempotent-replayed" not in headers(create(fake, effect))


# --- cards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_mastercard", "pm_card_amex", "pm_1", "pm_saved"])
def test_a_good_card_pays(fake: FakeServer, effect: str, card: str) -> None:
    intent = create(fake, effect, payment_method=card, confirm=True)
    assert intent.status == "succeeded"
    # A test blueprint becomes a payment method of its own at each use.
    assert (intent.payment_method == card) is not card.startswith("pm_card_")


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_bad_card_is_declined_with_its_codes_and_the_decline_is_kept(
    fake: FakeServer, effect: str, card: str, code: str, decline_code: str | None
) -> None:
    intent = create(fake, effect, payment_method=card)
    for replayed in (None, "true"):
        with pytest.raises(stripe.CardError) as declined:
            confirm(fake, intent.id, f"{effect}:confirm")
        error = declined.value.error
        assert (declined.value.http_status, error.code, error.to_dict().get("decline_code")) == (
            402,
            code,
            decline_code,
        )
        assert error.payment_intent.id == intent.id
        assert error.payment_intent.status == "requires_payment_method"
        assert error.charge == error.payment_intent.latest_charge
        assert (declined.value.headers or {}).get("Idempotent-Replayed") == replayed
    now = sdk(fake).v1.payment_intents.retrieve(intent.id)
    assert (now.payment_method, now.last_payment_error["code"]) == (None, code)
    assert charges(fake, effect) == 0


def test_a_declined_intent_can_be_confirmed_with_another_card(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect, payment_method="pm_card_chargeDeclined")
    with pytest.raises(stripe.CardError):
        confirm(fake, intent.id, f"{effect}:confirm:1")
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        confirm(fake, intent.id, f"{effect}:confirm:2")
    assert confirm(fake, intent.id, f"{effect}:confirm:3", payment_method="pm_card_visa").status == "succeeded"
    assert charges(fake, effect) == 1


def test_on_session_authentication_waits_for_the_customer(fake: FakeServer, effect: str) -> None:
    intent = create(fake, effect, payment_method="pm_card_authenticationRequired", confirm=True)
    assert (intent.status, charges(fake, effect)) == ("requires_action", 0)
