"""What a refund, a capture and a cancel may say; and that a charge of before them looks the same, to the byte."""

from __future__ import annotations

import json

import pytest

from service.core.effect import Policy, Ready
from service.core.errors import ValidationError
from service.providers.stripe.charges import create_params
from tasks import KINDS, cancel, capture, charge, refund, task_of
from tests.contract.leases import attempt

CHARGE = "0198c0de-0000-7000-8000-000000000017"
MONEY = {"charge": CHARGE, "amount": 1200, "currency": "eur"}
USUAL = {"refund": MONEY, "capture": MONEY, "cancel": {"charge": CHARGE}}
PAY = {"amount": 4200, "currency": "eur", "payment_method": "pm_1"}
KEY = "order:seventeen:back"


def ordered(kind, **changes):
    kwargs = {name: value for name, value in {**USUAL[kind], **changes}.items() if value is not ...}
    return task_of(kind).order(None, kwargs, dedupe_key=KEY)


@pytest.mark.parametrize("kind", ["refund", "capture", "cancel"])
@pytest.mark.parametrize(
    "value", [..., None, 7, "", "ch_1", "pi_1", CHARGE[:-1], f"{CHARGE}0", f" {CHARGE}", CHARGE.replace("-", "")]
)
def test_the_charge_must_be_the_id_of_an_effect(kind, value):
    with pytest.raises(ValidationError) as caught:
        ordered(kind, charge=value)
    assert caught.value.field == "charge"


@pytest.mark.parametrize("kind", ["refund", "capture"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", ...),
        ("amount", 0),
        ("amount", "1200"),
        ("amount", True),
        ("amount", 12.0),
        ("currency", ...),
        ("currency", "EUR"),
        ("reason", "because"),
        ("metadata", {"effect_id": "x"}),
        ("metadata", {"capture_effect_id": "x"}),
        ("metadata", {"dedupe": "x"}),
        ("payment_method", "pm_1"),
    ],
)
def test_what_moves_money_back_or_takes_it_refuses_by_name(kind, field, value):
    with pytest.raises(ValidationError) as caught:
        ordered(kind, **{field: value})
    assert (caught.value.field or "").startswith(field)


@pytest.mark.parametrize(("field", "value"), [("reason", "expired"), ("amount", 1200), ("currency", "eur")])
def test_a_cancel_refuses_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        ordered("cancel", **{field: value})
    assert caught.value.field == field


def test_each_acts_upon_its_charge_at_its_time_on_the_lane_of_charges():
    ready = {"refund": Ready.SETTLED, "capture": Ready.AUTHORISED, "cancel": Ready.AUTHORISED}
    for kind, when in ready.items():
        order = ordered(kind)
        assert (order.kind, order.lane, order.policy) == (kind, "charge", Policy.AT_MOST_ONCE)
        assert (order.concerns, order.ready_when) == (CHARGE, when)
        money = (None, None) if kind == "cancel" else (1200, "eur")
        assert (order.amount, order.currency) == money
    plain = charge.order(None, PAY, dedupe_key=KEY)
    assert (plain.concerns, plain.ready_when) == (None, None)


def test_one_charge_in_two_spellings_is_one_request():
    one, other = ordered("refund"), ordered("refund", charge=CHARGE.upper())
    assert (other.fingerprint, other.request, other.concerns) == (one.fingerprint, one.request, CHARGE)


def test_what_stripe_calls_a_reason_is_taken():
    for reason in ("duplicate", "fraudulent", "requested_by_customer"):
        assert ordered("refund", reason=reason, metadata={"order": "17"}).request["reason"] == reason
        assert ordered("cancel", reason=reason).request["reason"] == reason
    assert ordered("cancel", reason="abandoned").request == {"charge": CHARGE, "reason": "abandoned"}


@pytest.mark.parametrize("more", [{}, {"capture_method": "automatic"}])
def test_a_charge_of_before_there_was_a_choice_looks_the_same_to_the_byte(more):
    """Its key is at the provider and in the callers' code: neither may see another request (I4, I6)."""
    order = charge.order(None, {**PAY, "description": "Order 17", "metadata": {"order": "17"}, **more}, dedupe_key=KEY)
    assert order.fingerprint == "fe43a8c4688f382a3b1cc2e337a803e0cd001c1cc05b57b0477a940b4c9649ff"
    frozen = {**PAY, "description": "Order 17", "metadata": {"order": "17"}, "off_session": True}
    assert order.request == frozen
    sent = create_params(attempt(CHARGE, order.request))
    marks = sent.pop("metadata")
    assert (marks["order"], marks["effect_id"]) == ("17", CHARGE)
    assert json.dumps(sent) == (
        '{"amount": 4200, "currency": "eur", "payment_method": "pm_1", "description": "Order 17", '
        '"automatic_payment_methods": {"enabled": true, "allow_redirects": "never"}}'
    )


def test_a_charge_that_only_holds_the_money_is_another_request():
    plain = charge.order(None, PAY, dedupe_key=KEY)
    manual = charge.order(None, {**PAY, "capture_method": "manual"}, dedupe_key=KEY)
    assert manual.fingerprint != plain.fingerprint
    assert manual.request["capture_method"] == "manual"


def test_a_kind_is_found_by_its_name_and_an_unknown_one_is_refused():
    assert list(KINDS) == ["charge", "email", "refund", "capture", "cancel"]
    assert [task_of(name) for name in ("refund", "capture", "cancel")] == [refund, capture, cancel]
    assert all(KINDS[name] is task_of(name).kind for name in KINDS)
    with pytest.raises(ValidationError, match="charge, email, refund, capture, cancel") as caught:
        task_of("payout")
    assert caught.value.field == "kind"
