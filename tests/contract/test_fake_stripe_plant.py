"""What is planted for an audit is what a year of payments would have left behind, and can be walked through quickly."""

from __future__ import annotations

import time
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures
    confirm,
    fresh_effect,
    killable_fake,
    one_server,
    sdk,
    shared_fake,
    summary,
)

DAY_SECONDS = 24 * 3600
HUNDRED_THOUSAND = 100_000
CHUNK = 5_000
# Half a minute on an idle machine; tests share theirs.
PLANTING_SECONDS_MAX = 120


def plant(fake: FakeServer, *wishes: dict[str, Any]) -> list[dict[str, Any]]:
    return list(fake.admin("plant", {"intents": list(wishes)})["planted"])


def test_a_planted_payment_has_all_its_parts_and_they_agree(fake: FakeServer, effect: str) -> None:
    at = int(time.time()) - 10 * DAY_SECONDS
    back = {"amount": 300, "created": at + 60, "metadata": {"effect_id": f"{effect}-back"}, "key": f"{effect}:back"}
    (made,) = plant(
        fake,
        {
            "amount": 1234,
            "currency": "usd",
            "created": at,
            "customer": f"cus_{effect}",
            "key": f"{effect}:confirm",
            "metadata": {"effect_id": effect},
            "refunds": [back],
        },
    )
    v1 = sdk(fake).v1
    expand: Any = {"expand": ["latest_charge.balance_transaction", "latest_charge.refunds"]}
    intent = v1.payment_intents.retrieve(made["payment_intent"], expand)
    charge = intent.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert isinstance(charge.balance_transaction, stripe.BalanceTransaction)
    assert charge.refunds is not None
    assert (intent.status, intent.created, charge.created, charge.balance_transaction.created) == (
        "succeeded",
        at,
        at,
        at,
    )
    assert (charge.amount_captured, charge.amount_refunded, charge.balance_transaction.amount) == (1234, 300, 1234)
    assert [(each.id, each.created, each.amount) for each in charge.refunds] == [(made["refunds"][0], at + 60, 300)]
    assert [each.id for each in v1.payment_intents.list({"customer": f"cus_{effect}", "created": at})] == [intent.id]  # type: ignore[typeddict-item]
    keys = [
        str(event.request.idempotency_key)
        for event in v1.events.list({"created": {"gte": at, "lte": at + 60}, "limit": 100})
        if event.request and effect in str(event.request.idempotency_key)
    ]
    assert (keys.count(f"{effect}:confirm"), keys.count(f"{effect}:back")) == (3, 3)
    assert (summary(fake, effect)["charges"], summary(fake, f"{effect}-back")["refunds"]) == (1, 1)


@pytest.mark.parametrize(
    ("status", "shown", "money"),
    [
        ("succeeded", "succeeded", 1),
        ("captured", "succeeded", 1),
        ("requires_payment_method", "requires_payment_method", 0),
        ("requires_confirmation", "requires_confirmation", 0),
        ("requires_capture", "requires_capture", 0),
        ("processing", "processing", 0),
        ("declined", "requires_payment_method", 0),
        ("canceled", "canceled", 0),
    ],
)
def test_a_payment_can_be_planted_in_every_state(
    fake: FakeServer, effect: str, status: str, shown: str, money: int
) -> None:
    (made,) = plant(fake, {"amount": 500, "status": status, "metadata": {"effect_id": effect}})
    assert sdk(fake).v1.payment_intents.retrieve(made["payment_intent"]).status == shown
    assert summary(fake, effect)["rows"] == money
    if status == "requires_confirmation":
        assert confirm(fake, made["payment_intent"], f"{effect}:confirm").status == "succeeded"


def test_breaks_can_be_planted(fake: FakeServer, effect: str) -> None:
    wish: dict[str, Any] = {"amount": 500, "currency": "eur", "metadata": {"effect_id": effect}}
    over = {**wish, "metadata": {"effect_id": f"{effect}-over"}, "refunds": [{"amount": 400}, {"amount": 400}]}
    twice = plant(fake, wish, wish, over, {**wish, "without": ["ledger", "balance_transaction", "events"]})
    told = summary(fake, effect)
    assert (told["rows"], told["doubled"]) == (2, [effect])
    v1 = sdk(fake).v1
    assert sum(each.amount for each in v1.refunds.list({"payment_intent": twice[2]["payment_intent"]})) == 800
    assert v1.balance_transactions.list({"source": twice[3]["charge"]}).data == []


@pytest.mark.parametrize(
    "wish",
    [
        {"amount": 500, "colour": "blue"},
        {"amount": 500, "status": "gone"},
        {"amount": 500, "without": ["charge"]},
        {"amount": 500, "status": "processing", "refunds": [{}]},
        {"amount": 500, "refunds": [{"colour": "blue"}]},
        {},
    ],
)
def test_a_description_that_makes_no_sense_plants_nothing(fake: FakeServer, effect: str, wish: dict[str, Any]) -> None:
    with pytest.raises(OSError, match="422"):
        plant(fake, {"amount": 500, "metadata": {"effect_id": effect}}, wish)
    assert summary(fake, effect)["rows"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)  # the walk is a thousand pages through the SDK
def test_a_hundred_thousand_payments_are_planted_and_walked_through_in_minutes(own_fake: FakeServer) -> None:
    since, began = int(time.time()) - 20 * DAY_SECONDS, time.monotonic()
    for first in range(0, HUNDRED_THOUSAND, CHUNK):
        numbers = range(first, first + CHUNK)
        plant(
            own_fake, *({"amount": 1000 + n, "created": since + n, "metadata": {"effect_id": str(n)}} for n in numbers)
        )
    assert time.monotonic() - began < PLANTING_SECONDS_MAX
    told = own_fake.admin("ledger?rows=none")["summary"]
    assert (told["rows"], told["doubled"]) == (HUNDRED_THOUSAND, [])
    bounds: Any = {"created": {"gte": since, "lt": since + HUNDRED_THOUSAND}, "limit": 100}
    seen = [each.id for each in sdk(own_fake).v1.balance_transactions.list(bounds).auto_paging_iter()]
    assert len(set(seen)) == len(seen) == HUNDRED_THOUSAND
