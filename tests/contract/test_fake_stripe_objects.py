"""The fake's refunds, holds, events, lists and balance behave as Stripe's, asked by the real SDK over real sockets."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures among them
    charges,
    confirm,
    create,
    event_types,
    fresh_effect,
    headers,
    killable_fake,
    one_server,
    paid,
    refund,
    sdk,
    shared_fake,
    summary,
)

# --- refunds -------------------------------------------------------------------------------------


def test_a_refund_gives_back_what_is_left_and_has_a_ledger_row_and_an_effect_of_its_own(
    fake: FakeServer, effect: str
) -> None:
    intent = paid(fake, effect)
    back = refund(fake, intent, f"{effect}-back", reason="requested_by_customer")
    assert (back.amount, back.currency, back.status, back.charge) == (4200, "eur", "succeeded", intent.latest_charge)
    assert (back.metadata or {})["effect_id"] == f"{effect}-back"
    charge = sdk(fake).v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (4200, True)
    (row,) = fake.admin(f"ledger?effect_id={effect}-back")["money"]
    assert (row["kind"], row["amount"], row["refund"], row["charge"]) == ("refund", 4200, back.id, charge.id)
    assert row["idempotency_key"] == f"{effect}-back:refund"
    assert (charges(fake, effect), charges(fake, f"{effect}-back")) == (1, 1)
    assert sdk(fake).v1.payment_intents.retrieve(intent.id).status == "succeeded"


def test_a_full_refund_is_refused_the_second_time_and_kept_under_its_key(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect)
    refund(fake, intent, f"{effect}-1")
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError, match="has already been refunded") as refused:
            refund(fake, intent, f"{effect}-2")
        assert (refused.value.http_status, refused.value.code) == (400, "charge_already_refunded")
        assert (refused.value.headers or {}).get("Idempotent-Replayed") == replayed
    assert summary(fake, f"{effect}-2")["rows"] == 0


def test_partial_refunds_double_under_two_keys_as_long_as_the_money_lasts(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect)
    for n in range(2):
        refund(fake, intent, f"{effect}-back", key=f"{effect}:{n}", amount=2000)
    assert summary(fake, f"{effect}-back")["doubled"] == [f"{effect}-back"]
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refund(fake, intent, f"{effect}-back", key=f"{effect}:2", amount=2000)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, None, "amount")
    assert "Refund amount (€20.00) is greater than unrefunded amount on charge (€2.00)" in str(refused.value)
    assert refund(fake, intent, f"{effect}-rest").amount == 200


def test_the_same_key_refunds_once(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect)
    first = refund(fake, intent, f"{effect}-back", amount=100)
    again = refund(fake, intent, f"{effect}-back", amount=100)
    assert again.id == first.id
    assert headers(again)["idempotent-replayed"] == "true"
    assert charges(fake, f"{effect}-back") == 1


def test_refunds_are_found_by_payment_intent_by_charge_and_by_time(fake: FakeServer, effect: str) -> None:
    intent, other = paid(fake, effect), paid(fake, f"{effect}-other")
    made = [refund(fake, intent, f"{effect}-{n}", amount=10).id for n in range(3)]
    refund(fake, other, f"{effect}-elsewhere")
    v1 = sdk(fake).v1
    assert [each.id for each in v1.refunds.list({"payment_intent": intent.id})] == made[::-1]
    assert [each.id for each in v1.refunds.list({"charge": str(intent.latest_charge), "limit": 1}).auto_paging_iter()]
    assert v1.refunds.list({"payment_intent": intent.id, "created": {"gt": int(time.time()) + 9}}).data == []
    assert v1.refunds.retrieve(made[0]).amount == 10
    expanded = v1.refunds.retrieve(made[0], {"expand": ["charge.payment_intent", "balance_transaction"]})
    assert isinstance(expanded.charge, stripe.Charge)
    assert isinstance(expanded.charge.payment_intent, stripe.PaymentIntent)
    assert isinstance(expanded.balance_transaction, stripe.BalanceTransaction)
    assert expanded.balance_transaction.amount == -10


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"amount": "some"}, "parameter_invalid_integer", "amount"),
        ({"reason": "regret"}, None, "reason"),
        ({"colour": "blue"}, "parameter_unknown", "colour"),
        ({"payment_intent": "pi_nobody"}, "resource_missing", "payment_intent"),
        ({"payment_intent": None}, "parameter_missing", None),
        ({"payment_intent": None, "charge": "ch_nobody"}, "resource_missing", "charge"),
        ({"charge": "ch_other"}, None, "charge"),
    ],
)
def test_a_wrong_refund_is_refused_by_name(
    fake: FakeServer, effect: str, wrong: dict[str, Any], code: str | None, param: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refund(fake, paid(fake, effect), f"{effect}-back", **wrong)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert charges(fake, f"{effect}-back") == 0


@pytest.mark.parametrize("more", [{}, {"confirm": True, "capture_method": "manual"}], ids=["unpaid", "only held"])
def test_what_was_not_taken_cannot_be_given_back(fake: FakeServer, effect: str, more: dict[str, Any]) -> None:
    intent = create(fake, effect, **more)
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge to refund"):
        refund(fake, intent, f"{effect}-back")


def test_a_pending_refund_holds_its_amount_until_the_bank_answers(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect, payment_method="pm_card_pendingRefund")
    back = refund(fake, intent, f"{effect}-back", amount=4000)
    assert (back.status, back.pending_reason) == ("pending", "processing")
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        refund(fake, intent, f"{effect}-more", amount=300)
    fake.admin(f"refunds/{back.id}/finish", {})
    assert sdk(fake).v1.refunds.retrieve(back.id).status == "succeeded"
    assert charges(fake, f"{effect}-back") == 1


def test_a_refund_that_fails_later_comes_back_into_the_balance_and_is_no_second_effect(
    fake: FakeServer, effect: str
) -> None:
    intent = paid(fake, effect, payment_method="pm_card_refundFail")
    back = refund(fake, intent, f"{effect}-back")
    assert back.status == "succeeded"
    fake.admin(f"refunds/{back.id}/finish", {"reason": "expired_or_canceled_card"})
    failed = sdk(fake).v1.refunds.retrieve(back.id, {"expand": ["failure_balance_transaction"]})
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    reversal = failed.failure_balance_transaction
    assert isinstance(reversal, stripe.BalanceTransaction)
    assert (reversal.type, reversal.amount, reversal.reporting_category) == ("refund_failure", 4200, "refund_failure")
    charge = sdk(fake).v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    told = summary(fake, f"{effect}-back")
    assert (told["rows"], told["doubled"], told["reversals"], told["refunded"]) == (1, [], 1, {"eur": 0})
    assert event_types(fake, back.id) == ["refund.created", "refund.updated", "refund.failed", "refund.updated", "charge.refund.updated"]  # fmt: skip
    assert refund(fake, intent, f"{effect}-again").amount == 4200


@pytest.mark.parametrize("status", ["pending", "requires_action", "failed", "canceled"])
def test_how_refunds_begin_can_be_set(own_fake: FakeServer, effect: str, status: str) -> None:
    own_fake.admin("settings", {"refund_status": status})
    back = refund(own_fake, paid(own_fake, effect), f"{effect}-back")
    assert back.status == status
    if status == "requires_action":
        assert sdk(own_fake).v1.refunds.cancel(back.id).status == "canceled"


# --- capture and cancel --------------------------------------------------------------------------


def held(fake: FakeServer, effect: str, **more: Any) -> stripe.PaymentIntent:
    return create(fake, effect, confirm=True, capture_method="manual", **more)


def test_a_partial_capture_takes_its_part_once_and_releases_the_rest(fake: FakeServer, effect: str) -> None:
    intent = held(fake, effect)
    assert (intent.status, intent.amount_capturable, charges(fake, effect)) == ("requires_capture", 4200, 0)
    charge = sdk(fake).v1.charges.retrieve(str(intent.latest_charge))
    assert (charge.captured, charge.balance_transaction) == (False, None)
    options: Any = {"idempotency_key": f"{effect}:capture"}
    captured = sdk(fake).v1.payment_intents.capture(
        intent.id, {"amount_to_capture": 1000, "metadata": {"captured_by": "test"}}, options
    )
    assert (captured.status, captured.amount_received, captured.amount_capturable) == ("succeeded", 1000, 0)
    assert captured.metadata.to_dict() == {"effect_id": effect, "captured_by": "test"}
    charge = sdk(fake).v1.charges.retrieve(charge.id, {"expand": ["balance_transaction"]})
    assert (charge.captured, charge.amount_captured, charge.amount - charge.amount_refunded) == (True, 1000, 1000)
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)
    assert (charge.balance_transaction.amount, charge.balance_transaction.source) == (1000, charge.id)
    told = summary(fake, effect)
    assert (told["rows"], told["captures"], told["charges"], told["amounts"]) == (1, 1, 0, {"eur": 1000})
    with pytest.raises(stripe.InvalidRequestError) as second:
        sdk(fake).v1.payment_intents.capture(intent.id)
    assert (second.value.http_status, second.value.code) == (400, "payment_intent_unexpected_state")
    assert refund(fake, intent, f"{effect}-back").amount == 1000


def test_more_than_was_held_cannot_be_captured(fake: FakeServer, effect: str) -> None:
    intent = held(fake, effect)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        sdk(fake).v1.payment_intents.capture(intent.id, {"amount_to_capture": 4201, "metadata": {"tried": "yes"}})
    assert (refused.value.code, refused.value.param) == ("amount_too_large", "amount_to_capture")
    assert "tried" not in sdk(fake).v1.payment_intents.retrieve(intent.id).metadata


def test_a_cancel_releases_the_hold_keeps_the_reason_and_is_final(fake: FakeServer, effect: str) -> None:
    intent = held(fake, effect)
    canceled = sdk(fake).v1.payment_intents.cancel(intent.id, {"cancellation_reason": "requested_by_customer"})
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "requested_by_customer")
    assert (canceled.amount_capturable, canceled.canceled_at is not None) == (0, True)
    assert sdk(fake).v1.charges.retrieve(str(intent.latest_charge)).refunded is True
    for verb in (sdk(fake).v1.payment_intents.capture, sdk(fake).v1.payment_intents.cancel):
        with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
            verb(intent.id)
    assert charges(fake, effect) == 0


def test_a_hold_runs_out_after_seven_days_and_its_end_is_dated_to_itself(own_fake: FakeServer, effect: str) -> None:
    intent = held(own_fake, effect)
    own_fake.advance(hours=7 * 24 - 1)
    assert sdk(own_fake).v1.payment_intents.retrieve(intent.id).status == "requires_capture"
    own_fake.advance(hours=24)
    gone = sdk(own_fake).v1.payment_intents.list({"customer": "cus_1"}).data[0]
    assert (gone.id, gone.status, gone.cancellation_reason) == (intent.id, "canceled", "automatic")
    assert gone.canceled_at == intent.created + 7 * 24 * 3600
    with pytest.raises(stripe.InvalidRequestError, match="status of canceled"):
        sdk(own_fake).v1.payment_intents.capture(intent.id)
    (expired,) = sdk(own_fake).v1.events.list({"type": "charge.expired"}).data
    assert expired.request is not None
    assert (expired.request.id, expired.request.idempotency_key) == (None, None)


# --- events --------------------------------------------------------------------------------------


LIVES = {
    "paid": "create payment_intent.created, confirm charge.succeeded, confirm payment_intent.succeeded",
    "captured": "create payment_intent.created, confirm charge.succeeded,"
    " confirm payment_intent.amount_capturable_updated, capture charge.captured, capture payment_intent.succeeded",
    "canceled": "create payment_intent.created, cancel payment_intent.canceled",
    "declined": "create payment_intent.created, confirm charge.failed, confirm payment_intent.payment_failed",
    "acted": "create payment_intent.created, confirm payment_intent.requires_action",
    "processed": "create payment_intent.created, confirm charge.pending, confirm payment_intent.processing",
}
CARDS = {
    "declined": "pm_card_chargeDeclined",
    "acted": "pm_card_authenticationRequired",
    "processed": "pm_usBankAccount_success",
}


@pytest.mark.parametrize("life", LIVES)
def test_every_change_is_an_event_with_the_key_and_the_id_of_its_request(
    fake: FakeServer, effect: str, life: str
) -> None:
    verbs = sdk(fake).v1.payment_intents
    manual: Any = {"capture_method": "manual"} if life == "captured" else {}
    intent = create(fake, effect, payment_method=CARDS.get(life, "pm_card_visa"), **manual)
    for step in ("confirm", "capture", "cancel"):
        if f"{step} " in LIVES[life]:
            with suppress(stripe.CardError):
                getattr(verbs, step)(intent.id, {}, {"idempotency_key": f"{effect}:{step}"})
    told = []
    for event in sdk(fake).v1.events.list({"limit": 20}).data[::-1]:
        assert event.request is not None
        mine, _, step = str(event.request.idempotency_key).partition(":")
        if mine == effect:  # what happens without a request, another test's, carries neither key nor id
            assert str(event.request.id).startswith("req_")
            told.append(f"{step} {event.type}")
    assert ", ".join(told) == LIVES[life]


def test_a_refund_is_announced_on_its_charge_and_for_itself(fake: FakeServer, effect: str) -> None:
    intent = paid(fake, effect)
    back = refund(fake, intent, f"{effect}-back")
    assert event_types(fake, back.id) == ["refund.created", "refund.updated"]
    (event,) = sdk(fake).v1.events.list({"type": "charge.refunded", "limit": 1}).data
    assert event.data.object["id"] == intent.latest_charge
    assert event.data.object["amount_refunded"] == 4200
    assert event.request is not None
    assert event.request.idempotency_key == f"{effect}-back:refund"


def test_events_are_listed_by_type_by_types_by_time_and_thirty_days_back(own_fake: FakeServer, effect: str) -> None:
    intent = paid(own_fake, effect)
    v1 = sdk(own_fake).v1
    assert {event.type for event in v1.events.list({"type": "charge.*"})} == {"charge.succeeded"}
    both = v1.events.list({"types": ["charge.succeeded", "payment_intent.created"], "limit": 1})
    assert [event.type for event in both.auto_paging_iter()] == ["charge.succeeded", "payment_intent.created"]
    at = intent.created
    assert v1.events.list({"created": {"lt": at - 5}}).data == []
    assert len(v1.events.list({"created": {"gte": at - 5, "lte": at + 5}}).data) == 3
    first = v1.events.list().data[0].id
    own_fake.advance(hours=30 * 24 + 1)
    assert v1.events.list().data == []
    with pytest.raises(stripe.InvalidRequestError) as gone:
        v1.events.retrieve(first)
    assert gone.value.http_status == 404
    for wrong in ({"types": ["charge.failed"] * 21}, {"type": "charge.failed", "types": ["charge.failed"]}):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            v1.events.list(wrong)  # type: ignore[arg-type]
        assert refused.value.param == "types"
