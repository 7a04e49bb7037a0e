"""The real SDK in front of the Stripe fake, and what its ledger says: shared by the tests of the fake."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, running


@pytest.fixture(name="server", scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture(name="fake")
def shared_fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture(name="own_fake")
def killable_fake(tmp_path: Path) -> Iterator[FakeServer]:
    """A fake that the test may kill."""
    with running("stripe", tmp_path / "stripe") as fake:
        yield fake


@pytest.fixture(name="effect")
def fresh_effect() -> str:
    """An effect id nobody else uses: the ledger is never emptied."""
    return uuid.uuid4().hex


def sdk(fake: FakeServer, key: str = "sk_test_1", timeout: float = 10) -> stripe.StripeClient:
    return stripe.StripeClient(
        key,
        base_addresses={"api": fake.address["url"]},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def params(effect: str, **more: Any) -> dict[str, Any]:
    return {
        "amount": 4200,
        "currency": "eur",
        "customer": "cus_1",
        "payment_method": "pm_1",
        "metadata": {"effect_id": effect},
        **more,
    }


def create(fake: FakeServer, effect: str, key: str | None = None, **more: Any) -> stripe.PaymentIntent:
    return sdk(fake).v1.payment_intents.create(params(effect, **more), {"idempotency_key": key or f"{effect}:create"})


def confirm(fake: FakeServer, intent: str, key: str, **more: Any) -> stripe.PaymentIntent:
    return sdk(fake).v1.payment_intents.confirm(intent, {"off_session": True, **more}, {"idempotency_key": key})


def paid(fake: FakeServer, effect: str, **more: Any) -> stripe.PaymentIntent:
    return create(fake, effect, confirm=True, **more)


def refund(
    fake: FakeServer, intent: stripe.PaymentIntent, effect: str, key: str | None = None, **more: Any
) -> stripe.Refund:
    wish: Any = {"payment_intent": intent.id, "metadata": {"effect_id": effect}, **more}
    return sdk(fake).v1.refunds.create(wish, {"idempotency_key": key or f"{effect}:refund"})


def summary(fake: FakeServer, effect: str) -> dict[str, Any]:
    return dict(fake.admin(f"ledger?effect_id={effect}")["summary"])


def event_types(fake: FakeServer, object_id: str) -> list[str]:
    """What was said about one object, oldest first."""
    events = sdk(fake).v1.events.list({"limit": 100}).data
    return [str(event.type) for event in events[::-1] if event.data.object["id"] == object_id]


def charges(fake: FakeServer, effect: str) -> int:
    return int(fake.admin(f"ledger?effect_id={effect}")["summary"]["rows"])


def sent(fake: FakeServer, key: str) -> list[dict[str, Any]]:
    return list(fake.admin(f"requests?key={key}")["requests"])


def headers(thing: stripe.StripeObject) -> dict[str, str]:
    return dict(thing.last_response.headers)
