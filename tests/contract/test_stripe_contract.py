"""What we rely on of Stripe, asked in the same words of the fake and of Stripe's own sandbox.

The sandbox runs when COUNTERFOIL_TEST_STRIPE_KEY holds a test key (sk_test_… or rk_test_…); otherwise its half is
skipped and says so. A fake that passes where the sandbox fails is wrong, and with it every proof that stands on it.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
import stripe

from tests.contract.fake_servers import running
from tests.guard import SANDBOX_KEY

T = TypeVar("T")
SETTLED_SECONDS = 30.0  # lists and events of the sandbox follow within seconds; search may take a minute


@dataclass
class Account:
    """A Stripe account, real or not, and a name nobody has used in it."""

    client: stripe.StripeClient
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def key(self, step: str) -> dict[str, str]:
        return {"idempotency_key": f"{self.name}:{step}"}

    def create(self, step: str = "create", **more: Any) -> stripe.PaymentIntent:
        wish: Any = {
            "amount": 4200,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "metadata": {"effect_id": self.name},
            **more,
        }
        return self.client.v1.payment_intents.create(wish, self.key(step))

    def confirm(self, intent: str, step: str = "confirm") -> stripe.PaymentIntent:
        return self.client.v1.payment_intents.confirm(intent, {"off_session": True}, self.key(step))

    def paid(self, **more: Any) -> stripe.PaymentIntent:
        return self.confirm(self.create(**more).id)

    def refund(self, intent: str, step: str, **more: Any) -> stripe.Refund:
        wish: Any = {"payment_intent": intent, "metadata": {"effect_id": f"{self.name}:{step}"}, **more}
        return self.client.v1.refunds.create(wish, self.key(step))


@pytest.fixture(scope="module", params=["fake", "sandbox"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stripe.StripeClient]:
    if request.param == "fake":
        with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
            yield stripe.StripeClient("sk_test_1", base_addresses={"api": fake.address["url"]}, max_network_retries=0)
        return
    key = os.environ.get(SANDBOX_KEY, "")
    if not key.startswith(("sk_test_", "rk_test_")):
        pytest.skip(f"{SANDBOX_KEY} holds no test key: nothing was asked of Stripe's sandbox")
    yield stripe.StripeClient(key, max_network_retries=0)


@pytest.fixture
def account(client: stripe.StripeClient) -> Account:
    return Account(client)


def headers(thing: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in thing.last_response.headers.items()}


def eventually(look: Callable[[], T], what: str) -> T:
    deadline = time.monotonic() + SETTLED_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)
    return found


def test_an_unconfirmed_intent_waits_and_a_confirmed_one_has_succeeded(account):
    intent = account.create()
    assert (intent.status, intent.amount_received, intent.latest_charge) == ("requires_confirmation", 0, None)
    paid = account.confirm(intent.id)
    assert (paid.id, paid.status, paid.amount_received) == (intent.id, "succeeded", 4200)
    assert paid.metadata["effect_id"] == account.name
    assert paid.livemode is False


def test_the_same_key_gives_the_same_answer_and_says_that_it_is_a_replay(account):
    one, two = account.create(), account.create()
    assert one.id == two.id
    first, second = headers(one), headers(two)
    assert "idempotent-replayed" not in first
    assert second["idempotent-replayed"] == "true"
    assert second["original-request"] == first["request-id"] != second["request-id"]


def test_a_replay_shows_the_object_as_it_was_then(account):
    intent = account.create()
    account.confirm(intent.id)
    assert account.create().status == "requires_confirmation"


def test_the_same_key_with_other_parameters_is_refused_as_idempotency_error(account):
    account.create()
    with pytest.raises(stripe.IdempotencyError) as refused:
        account.create(amount=4300)
    assert refused.value.http_status == 400
    assert refused.value.error.type == "idempotency_error"


def test_the_same_key_on_another_path_is_refused(account):
    intent = account.create(step="shared")
    with pytest.raises(stripe.IdempotencyError):
        account.confirm(intent.id, step="shared")


def test_an_intent_succeeds_at_most_once_whatever_the_key(account):
    paid = account.paid()
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.confirm(paid.id, step="again")
    assert refused.value.code == "payment_intent_unexpected_state"


def test_two_requests_with_one_key_at_once_make_one_intent(account):
    def create(_: int) -> str | None:
        try:
            return account.create().id
        except stripe.StripeError as error:
            assert error.http_status == 409, error  # noqa: PT017 - one may win, the others meet 409
            return None

    with ThreadPoolExecutor(4) as pool:
        made = {found for found in pool.map(create, range(4)) if found}
    assert len(made) == 1
    assert {account.create().id} == made


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_decline_is_a_402_that_is_replayed(account, card, code, decline_code):
    intent = account.create(payment_method=card)
    for replayed in (None, "true"):
        with pytest.raises(stripe.CardError) as declined:
            account.confirm(intent.id)
        error = declined.value
        assert (error.http_status, error.error.code, error.error.decline_code) == (402, code, decline_code)
        assert error.error.payment_intent.status == "requires_payment_method"
        assert {k.lower(): v for k, v in (error.headers or {}).items()}.get("idempotent-replayed") == replayed


def test_a_parameter_that_is_wrong_in_itself_is_not_kept_under_the_key(account):
    with pytest.raises(stripe.InvalidRequestError):
        account.create(currency="zzz")
    assert account.create().status == "requires_confirmation"


def test_a_wrong_key_of_the_account_is_401(account):
    options = {"api_key": "sk_nobody", **account.key("create")}
    with pytest.raises(stripe.AuthenticationError) as refused:
        account.client.v1.payment_intents.create({"amount": 4200, "currency": "eur"}, options)
    assert refused.value.http_status == 401


def test_an_unknown_intent_is_404_resource_missing(account):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.client.v1.payment_intents.retrieve("pi_nobody")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


def test_a_held_amount_is_captured_once(account):
    held = account.paid(capture_method="manual")
    assert (held.status, held.amount_received, held.amount_capturable) == ("requires_capture", 0, 4200)
    wish: Any = {"amount_to_capture": 3000, "metadata": {"capture_effect_id": "c1"}}
    captured = account.client.v1.payment_intents.capture(held.id, wish, account.key("capture"))
    assert (captured.status, captured.amount_received) == ("succeeded", 3000)
    assert captured.metadata["effect_id"] == account.name
    assert captured.metadata["capture_effect_id"] == "c1"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.client.v1.payment_intents.capture(held.id, {}, account.key("capture-again"))
    assert refused.value.code == "payment_intent_unexpected_state"


def test_a_held_amount_is_let_go_by_a_cancel(account):
    held = account.paid(capture_method="manual")
    gone = account.client.v1.payment_intents.cancel(held.id, {}, account.key("cancel"))
    assert (gone.status, gone.amount_received) == ("canceled", 0)


def test_refunds_are_found_by_their_intent_and_end_when_nothing_remains(account):
    paid = account.paid()
    part = account.refund(paid.id, "part", amount=1200)
    assert part.status in ("succeeded", "pending")
    assert account.refund(paid.id, "part", amount=1200).id == part.id
    account.refund(paid.id, "rest", amount=3000)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.refund(paid.id, "more", amount=1)
    assert refused.value.code == "charge_already_refunded"
    listed = account.client.v1.refunds.list({"payment_intent": paid.id, "limit": 100}).data
    assert {item.metadata["effect_id"] for item in listed} == {f"{account.name}:part", f"{account.name}:rest"}


def test_an_event_names_the_key_of_the_request_that_made_it(account):
    intent = account.create()

    def mine() -> list[str]:
        wish: Any = {"types": ["payment_intent.created"], "created": {"gte": intent.created - 60}, "limit": 100}
        events = account.client.v1.events.list(wish).data
        return [
            event.data.object["id"]
            for event in events
            if event.request and event.request.idempotency_key == f"{account.name}:create"
        ]

    assert eventually(mine, "the event") == [intent.id]


def test_intents_are_listed_by_customer(account):
    customer = account.client.v1.customers.create({"metadata": {"test": account.name}}, account.key("customer"))
    intent = account.create(customer=customer.id)
    wish: Any = {"customer": customer.id, "created": {"gte": intent.created}}
    assert [item.id for item in account.client.v1.payment_intents.list(wish).data] == [intent.id]
