"""Every object the fake can show is what the installed stripe-python declares: all fields, types and literals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer
from tests.contract.fake_stripe import create, one_server, paid, refund, sdk, shared_fake  # noqa: F401 - fixtures
from tests.contract.sdk_shapes import faults, fields

Json = dict[str, Any]
Make = Callable[[FakeServer, str], stripe.StripeObject]

CLASSES = {
    "balance_transaction": stripe.BalanceTransaction,
    "charge": stripe.Charge,
    "customer": stripe.Customer,
    "event": stripe.Event,
    "payment_intent": stripe.PaymentIntent,
    "payment_method": stripe.PaymentMethod,
    "refund": stripe.Refund,
}
INTENT_EXPANSIONS = ["latest_charge.balance_transaction", "payment_method", "customer", "latest_charge.refunds"]
EVENTS = [
    "charge.captured",
    "charge.expired",
    "charge.failed",
    "charge.pending",
    "charge.refund.updated",
    "charge.refunded",
    "charge.succeeded",
    "customer.created",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_method.attached",
    "payment_method.detached",
    "refund.created",
    "refund.failed",
    "refund.updated",
]


def raw(thing: stripe.StripeObject) -> Json:
    """The JSON as it came over the wire."""
    return dict(thing.last_response.data)


def intent_of(card: str, finish: str | None = None, **more: Any) -> Make:
    def make(fake: FakeServer, name: str) -> stripe.StripeObject:
        v1 = sdk(fake).v1
        customer = v1.customers.create({"email": "ada@example.test"}).id
        intent = create(fake, name, customer=customer, payment_method=card, **more)
        with suppress(stripe.CardError):
            v1.payment_intents.confirm(intent.id)
        if finish:
            fake.admin(f"intents/{intent.id}/finish", {"as": finish})
        return v1.payment_intents.retrieve(intent.id, {"expand": INTENT_EXPANSIONS})

    return make


def charge_of(make: Make) -> Make:
    def charge(fake: FakeServer, name: str) -> stripe.StripeObject:
        intent: Any = make(fake, name)
        wish: Any = {"expand": ["balance_transaction", "payment_intent", "customer"]}
        return sdk(fake).v1.charges.retrieve(intent.latest_charge.id, wish)

    return charge


def taken(verb: str, wish: Json, make: Make) -> Make:
    def make_and_take(fake: FakeServer, name: str) -> stripe.StripeObject:
        intent: Any = make(fake, name)
        getattr(sdk(fake).v1.payment_intents, verb)(intent.id, wish)
        return sdk(fake).v1.payment_intents.retrieve(intent.id, {"expand": INTENT_EXPANSIONS})

    return make_and_take


def refund_of(card: str = "pm_card_visa", finish: str | None = None, begins: str | None = None) -> Make:
    def make(fake: FakeServer, name: str) -> stripe.StripeObject:
        intent: Any = intent_of(card, "succeeded" if "Bank" in card else None)(fake, name)
        fake.admin("settings", {"refund_status": begins})
        back = refund(fake, intent, name, amount=1000, reason="duplicate")
        fake.admin("settings", {"refund_status": None})
        if finish:
            fake.admin(f"refunds/{back.id}/finish", {"as": finish})
        expand = ["charge", "payment_intent", "balance_transaction", "failure_balance_transaction", "customer"]
        return sdk(fake).v1.refunds.retrieve(back.id, {"expand": expand})

    return make


def line_of(make: Make, name_of_line: str = "balance_transaction") -> Make:
    def line(fake: FakeServer, name: str) -> stripe.StripeObject:
        thing: Any = make(fake, name)
        return sdk(fake).v1.balance_transactions.retrieve(thing[name_of_line].id, {"expand": ["source"]})

    return line


def method_of(card: str, *, detached: bool = False) -> Make:
    def make(fake: FakeServer, _name: str) -> stripe.StripeObject:
        v1 = sdk(fake).v1
        customer = v1.customers.create()
        method = v1.payment_methods.attach(card, {"customer": customer.id})
        return v1.payment_methods.detach(method.id) if detached else method

    return make


def bare_intent(fake: FakeServer, name: str) -> stripe.StripeObject:
    wish: Any = {"amount": 100, "currency": "usd", "payment_method_types": ["card"]}
    return sdk(fake).v1.payment_intents.create(wish, {"idempotency_key": name})


def saved_by_nobody(fake: FakeServer, name: str) -> stripe.StripeObject:
    return sdk(fake).v1.payment_methods.retrieve(str(paid(fake, name).payment_method))


def full_customer(fake: FakeServer, name: str) -> stripe.StripeObject:
    address: Any = {"city": "Turin", "country": "IT", "line1": "1", "line2": "2", "postal_code": "3", "state": "4"}
    wish: Any = {"address": address, "description": name, "name": "Ada", "phone": "1", "preferred_locales": ["it"]}
    return sdk(fake).v1.customers.create(
        {**wish, "metadata": {"a": "b"}, "shipping": {"address": address, "name": "A"}}
    )


def planted(fake: FakeServer, name: str) -> stripe.StripeObject:
    wish: Json = {"amount": 500, "metadata": {"effect_id": name}, "refunds": [{"amount": 100}]}
    (made,) = fake.admin("plant", {"intents": [wish]})["planted"]
    return sdk(fake).v1.payment_intents.retrieve(made["payment_intent"], {"expand": ["latest_charge.refunds"]})


GOOD, HELD = intent_of("pm_card_visa"), intent_of("pm_card_visa", capture_method="manual")
ROWS: dict[str, Make] = {
    "payment_intent: created": bare_intent,
    "payment_intent: requires_confirmation": create,
    "payment_intent: succeeded": GOOD,
    "payment_intent: declined": intent_of("pm_card_chargeDeclined"),
    "payment_intent: requires_action": intent_of("pm_card_authenticationRequired"),
    "payment_intent: authenticated": intent_of("pm_card_authenticationRequired", "succeeded"),
    "payment_intent: not authenticated": intent_of("pm_card_authenticationRequired", "failed"),
    "payment_intent: processing": intent_of("pm_usBankAccount_processing"),
    "payment_intent: bank said yes": intent_of("pm_usBankAccount_success", "succeeded"),
    "payment_intent: bank said no": intent_of("pm_success_de", "failed"),
    "payment_intent: requires_capture": HELD,
    "payment_intent: captured in part": taken("capture", {"amount_to_capture": 1000}, HELD),
    "payment_intent: canceled": taken("cancel", {"cancellation_reason": "duplicate"}, HELD),
    "payment_intent: planted": planted,
    "charge: succeeded": charge_of(GOOD),
    "charge: failed": charge_of(intent_of("pm_card_chargeDeclinedExpiredCard")),
    "charge: uncaptured": charge_of(HELD),
    "charge: captured in part": charge_of(taken("capture", {"amount_to_capture": 1000}, HELD)),
    "charge: released": charge_of(taken("cancel", {}, HELD)),
    "charge: pending": charge_of(intent_of("pm_usBankAccount_processing")),
    "charge: of a bank": charge_of(intent_of("pm_success_de", "succeeded")),
    "refund: succeeded": refund_of(),
    "refund: pending": refund_of("pm_card_pendingRefund"),
    "refund: requires_action": refund_of(begins="requires_action"),
    "refund: failed": refund_of("pm_card_refundFail", "failed"),
    "refund: canceled": refund_of(begins="requires_action", finish="canceled"),
    "refund: to a bank": refund_of("pm_usBankAccount_success"),
    "balance_transaction: charge": line_of(charge_of(GOOD)),
    "balance_transaction: payment": line_of(charge_of(intent_of("pm_usBankAccount_success", "succeeded"))),
    "balance_transaction: refund": line_of(refund_of()),
    "balance_transaction: payment_refund": line_of(refund_of("pm_usBankAccount_success")),
    "balance_transaction: refund_failure": line_of(refund_of(finish="failed"), "failure_balance_transaction"),
    "customer: bare": lambda fake, _name: sdk(fake).v1.customers.create(),
    "customer: full": full_customer,
    "payment_method: card": method_of("pm_card_visa"),
    "payment_method: detached": method_of("pm_card_amex", detached=True),
    "payment_method: us_bank_account": method_of("pm_usBankAccount_success"),
    "payment_method: sepa_debit": method_of("pm_success_de"),
    "payment_method: saved by nobody": saved_by_nobody,
}


@pytest.fixture(name="events", scope="module")
def all_events(server: FakeServer) -> dict[str, Json]:
    """One event of each type, after everything above has happened once, and a hold has run out."""
    for number, make in enumerate(ROWS.values()):
        make(server, f"event-{number}")
    server.advance(hours=8 * 24)
    told = raw_events(server)
    return {event["type"]: event for event in told}


def raw_events(fake: FakeServer) -> list[Json]:
    told: list[Json] = []
    while True:
        wish: Any = {"limit": 100, **({"starting_after": told[-1]["id"]} if told else {})}
        page = raw(sdk(fake).v1.events.list(wish))
        told += page["data"]
        if not page["has_more"]:
            return told


@pytest.mark.parametrize("row", ROWS)
def test_an_object_has_the_shape_the_sdk_declares(fake: FakeServer, row: str) -> None:
    shown = raw(ROWS[row](fake, f"shape of {list(ROWS).index(row)}"))
    kind = row.partition(":")[0]
    assert shown["object"] == kind
    assert faults(shown, CLASSES[kind]) == []
    assert kind in ("balance_transaction", "refund") or shown["livemode"] is False


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_has_the_shape_the_sdk_declares_and_so_has_what_it_is_about(
    events: dict[str, Json], kind: str
) -> None:
    event = events[kind]
    about = event["data"]["object"]
    assert faults(event, stripe.Event) == []
    assert faults(about, CLASSES[about["object"]]) == []


def test_no_event_type_is_left_out_above(events: dict[str, Json]) -> None:
    assert sorted(events) == sorted(EVENTS)


def test_a_card_error_has_the_shape_the_sdk_declares(fake: FakeServer) -> None:
    with pytest.raises(stripe.CardError) as declined:
        paid(fake, "shape of an error", payment_method="pm_card_chargeDeclined")
    error = (declined.value.json_body or {})["error"]
    assert faults(error, stripe.ErrorObject) == []
    assert list(error) == sorted(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_annotation_of_the_sdk_can_be_resolved(kind: str) -> None:
    assert len(fields(CLASSES[kind])) > 10


# --- the check itself ----------------------------------------------------------------------------


def remove(shown: Json) -> None:
    del shown["amount"]


def mistype(shown: Json) -> None:
    shown["amount"] = "4200"


def misname(shown: Json) -> None:
    shown["status"] = "paid"


def invent(shown: Json) -> None:
    shown["_blueprint"] = "pm_card_visa"


def break_deep(shown: Json) -> None:
    shown["latest_charge"]["outcome"]["type"] = 7


def break_list(shown: Json) -> None:
    shown["latest_charge"]["balance_transaction"]["fee_details"][0]["amount"] = None


def lie(shown: Json) -> None:
    shown["amount_received"] = True


@pytest.mark.parametrize("damage", [remove, mistype, misname, invent, break_deep, break_list, lie])
def test_a_broken_object_is_refused(fake: FakeServer, damage: Callable[[Json], None]) -> None:
    shown = raw(GOOD(fake, f"to be broken: {damage.__name__}"))
    assert faults(shown, stripe.PaymentIntent) == []
    broken = copy.deepcopy(shown)
    damage(broken)
    assert faults(broken, stripe.PaymentIntent) != []
