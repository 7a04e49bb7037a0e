"""A charge through the real SDK against the fake: once at the ledger, whatever goes wrong on the way."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from service.core.effect import Attempt, LeaseLost
from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.providers.stripe.answers import Reply, Sent, Step
from service.providers.stripe.api import Call, StripeApi
from service.providers.stripe.charges import StripeCharges
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again, attempt
from tests.contract.raw_server import Script, answer, drips, raw, says


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture
def charge() -> Attempt:
    """A first attempt at an effect nobody else uses: the ledger is never emptied."""
    request = {
        "amount": 4200,
        "currency": "eur",
        "customer": "cus_1",
        "payment_method": "pm_card_visa",
        "receipt_email": "ada@example.test",
        "description": "Order 17",
        "metadata": {"order": "17", "effect_id": "forged"},
    }
    return attempt(str(uuid.uuid4()), request)


def provider(url: str, seconds: float = 10.0, *, livemode: bool = False) -> StripeCharges:
    return StripeCharges(StripeApi("sk_test_1", url), livemode=livemode, deadline_seconds=seconds)


def perform(fake: FakeServer, charge: Attempt, lease: KeptLease, seconds: float = 10.0) -> Outcome:
    return provider(fake.address["url"], seconds).perform(charge, lease)


def money(fake: FakeServer, charge: Attempt) -> list[dict[str, Any]]:
    return [row for row in fake.admin("ledger")["money"] if row["metadata"].get("effect_id") == charge.id]


def seen(fake: FakeServer, charge: Attempt, step: str) -> list[dict[str, Any]]:
    return list(fake.admin(f"requests?key={charge.id}:{step}")["requests"])


def test_a_charge_is_created_recorded_confirmed_and_told(fake: FakeServer, charge: Attempt) -> None:
    lease = KeptLease()
    outcome = perform(fake, charge, lease)
    assert isinstance(outcome, Succeeded)
    (row,) = money(fake, charge)
    assert lease.records == [{"payment_intent": outcome.ref}]
    assert outcome.detail == {
        "payment_intent": outcome.ref,
        "charge": row["charge"],
        "amount": 4200,
        "currency": "eur",
        "status": "succeeded",
    }
    assert outcome.evidence["request_id"].startswith("req_")
    assert lease.guards == 2


def test_stripe_never_learns_the_receipt_address(charge: Attempt) -> None:
    with raw(says(answer(b"{}", "500 Internal Server Error"))) as server:
        assert isinstance(provider(server.url).perform(charge, KeptLease()), Unknown)
        (request,) = server.requests
    assert b"receipt" not in request
    assert b"example.test" not in request
    assert f"Idempotency-Key: {charge.id}:create\r\n".encode() in request
    assert f"metadata[effect_id]={charge.id}".encode() in request


def test_i6_each_try_sends_the_same_bytes(charge: Attempt) -> None:
    with raw(says(answer(b"{}", "500 Internal Server Error"))) as server:
        for _ in range(2):
            provider(server.url).perform(charge, KeptLease())
        assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("route", ["create", "confirm"])
@pytest.mark.parametrize("action", ["close_before", "close_after", "truncate", "drip", "status_502_html", "hang"])
def test_w7_w8_a_lost_answer_is_settled_by_the_next_attempt_and_charged_once(
    fake: FakeServer, charge: Attempt, route: str, action: str
) -> None:
    fake.fault(action, route=route, key=charge.id, seconds=3)
    lease = KeptLease()
    assert isinstance(perform(fake, charge, lease, seconds=1.0), Unknown)
    outcome = perform(fake, again(charge, lease), KeptLease())
    while isinstance(outcome, Deferred):  # the first request may still be at work
        assert outcome.reason == "in_progress"
        outcome = perform(fake, again(charge, lease), KeptLease())
    assert isinstance(outcome, Succeeded)
    assert [row["amount"] for row in money(fake, charge)] == [4200]


def test_w11_dead_before_the_id_was_committed_the_same_intent_comes_back(fake: FakeServer, charge: Attempt) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    class DyingLease(KeptLease):
        def record(self, progress: Any) -> None:
            raise Killed(progress)

    with pytest.raises(Killed):
        perform(fake, charge, DyingLease())
    lease = KeptLease()
    assert isinstance(perform(fake, again(charge, KeptLease()), lease), Succeeded)
    assert [(row["status"], row["replayed"]) for row in seen(fake, charge, "create")] == [(200, False), (200, True)]
    assert len(money(fake, charge)) == 1


def test_w11_lost_between_the_steps_the_intent_is_looked_up_and_confirmed(fake: FakeServer, charge: Attempt) -> None:
    lease = KeptLease(lost_at=2)
    with pytest.raises(LeaseLost):
        perform(fake, charge, lease)
    assert seen(fake, charge, "confirm") == []
    assert isinstance(perform(fake, again(charge, lease), KeptLease()), Succeeded)
    assert len(money(fake, charge)) == 1


def test_w9_a_success_nobody_recorded_is_adopted_even_when_every_key_is_forgotten(
    fake: FakeServer, charge: Attempt
) -> None:
    lease = KeptLease()
    first = perform(fake, charge, lease)
    fake.advance(hours=25)
    second = perform(fake, again(charge, lease), KeptLease(past_horizon=True))
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert (second.ref, second.evidence["adopted"]) == (first.ref, True)
    assert len(money(fake, charge)) == 1


def test_past_the_horizon_and_without_a_recorded_intent_nothing_is_sent(fake: FakeServer, charge: Attempt) -> None:
    doubtful = again(charge, KeptLease(), sent_age_seconds=25 * 3600.0)
    outcome = perform(fake, doubtful, KeptLease(past_horizon=True))
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "not_found"
    assert seen(fake, charge, "create") == []


@pytest.mark.parametrize(
    ("card", "code", "decline"),
    [
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
def test_a_decline_fails_with_stripes_codes_and_stays_failed(
    fake: FakeServer, charge: Attempt, card: str, code: str, decline: str
) -> None:
    declined = attempt(charge.id, {**charge.request, "payment_method": card})
    lease = KeptLease()
    for try_ in (lambda: declined, lambda: again(declined, lease)):
        outcome = perform(fake, try_(), lease)
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.detail["decline_code"]) == (code, decline)
        assert outcome.detail["payment_intent"] == lease.records[0]["payment_intent"]
    assert money(fake, charge) == []


def test_a_customer_who_must_act_is_awaited(fake: FakeServer, charge: Attempt) -> None:
    asked = {**charge.request, "payment_method": "pm_card_authenticationRequired", "off_session": False}
    outcome = perform(fake, attempt(charge.id, asked), KeptLease())
    assert isinstance(outcome, Awaiting)
    assert outcome.reason == "requires_action"
    assert money(fake, charge) == []


@pytest.mark.parametrize(
    ("action", "reason"),
    [("status_401", "access_refused"), ("status_429", "rate_limited"), ("conflict_409", "in_progress")],
)
@pytest.mark.parametrize("route", ["create", "confirm"])
def test_a_front_answer_defers_and_the_next_attempt_charges_once(
    fake: FakeServer, charge: Attempt, action: str, reason: str, route: str
) -> None:
    fake.fault(action, route=route, key=charge.id)
    lease = KeptLease()
    outcome = perform(fake, charge, lease)
    assert isinstance(outcome, Deferred)
    assert outcome.reason == reason
    assert isinstance(perform(fake, again(charge, lease, in_doubt=False, prior=State.PENDING), lease), Succeeded)
    assert len(money(fake, charge)) == 1


@pytest.mark.parametrize(("action", "charged"), [("status_500_stored_before", 0), ("status_500_stored_after", 1)])
def test_a_stored_500_on_the_confirm_is_never_settled_by_guessing(
    fake: FakeServer, charge: Attempt, action: str, charged: int
) -> None:
    fake.fault(action, route="confirm", key=charge.id)
    lease = KeptLease()
    assert isinstance(perform(fake, charge, lease), Unknown)
    second = perform(fake, again(charge, lease), KeptLease())
    # With the money moved the intent says so; without it the same key repeats the same 500 for a day.
    assert isinstance(second, Succeeded if charged else Unknown)
    assert len(money(fake, charge)) == charged


def test_i4_another_payload_under_our_key_is_a_contradiction(fake: FakeServer, charge: Attempt) -> None:
    perform(fake, charge, KeptLease())
    other = attempt(charge.id, {**charge.request, "amount": 1})
    outcome = perform(fake, other, KeptLease())
    assert isinstance(outcome, Contradiction)
    assert outcome.reason == "idempotency_error"
    assert [row["amount"] for row in money(fake, charge)] == [4200]


def test_an_intent_of_another_mode_is_a_contradiction(fake: FakeServer, charge: Attempt) -> None:
    outcome = provider(fake.address["url"], livemode=True).perform(charge, KeptLease())
    assert isinstance(outcome, Contradiction)
    assert money(fake, charge) == []


def test_a_client_used_before_the_fork_serves_parent_and_child(fake: FakeServer, charge: Attempt) -> None:
    charges = provider(fake.address["url"])
    assert isinstance(charges.perform(charge, KeptLease()), Succeeded)
    child = os.fork()
    if child == 0:
        try:
            other = attempt(str(uuid.uuid4()), charge.request)
            os._exit(0 if isinstance(charges.perform(other, KeptLease()), Succeeded) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert isinstance(charges.perform(attempt(str(uuid.uuid4()), charge.request), KeptLease()), Succeeded)


STRIPE_ERROR = b'{"error":{"type":"api_error","message":"Sorry."}}'


@pytest.mark.parametrize(
    ("script", "sent", "status", "error"),
    [
        (says(b"", close=True), Sent.MAYBE, None, False),
        (says(b"", reset=True), Sent.MAYBE, None, False),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", close=True), Sent.MAYBE, None, False),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{", close=True), Sent.MAYBE, None, False),
        (drips(answer(b"{" * 500)), Sent.MAYBE, None, False),
        (says(answer(b"<html>")), Sent.ANSWERED, 200, False),
        (says(answer(b"")), Sent.ANSWERED, 200, False),
        (says(answer(b"[1]")), Sent.ANSWERED, 200, False),
        (says(answer(b"17")), Sent.ANSWERED, 200, False),
        (says(answer(b'{"object":"charge"}')), Sent.ANSWERED, 200, False),
        (says(answer(b"\xff\xfe")), Sent.ANSWERED, 200, False),
        (says(answer(b"<html>", "502 Bad Gateway")), Sent.ANSWERED, 502, False),
        (says(answer(b'{"error":"no"}', "400 Bad Request")), Sent.ANSWERED, 400, False),
        (says(answer(b'{"error":[]}', "400 Bad Request")), Sent.ANSWERED, 400, False),
        (says(answer(STRIPE_ERROR, "500 Internal Server Error")), Sent.ANSWERED, 500, True),
        (says(answer(STRIPE_ERROR, "409 Conflict", "Stripe-Should-Retry: true")), Sent.ANSWERED, 409, True),
        (says(answer(STRIPE_ERROR, "429 Too Many Requests", "Retry-After: 7")), Sent.ANSWERED, 429, True),
        (says(answer(b"", "302 Found", "Location: /v1/other")), Sent.ANSWERED, 302, False),
        (says(answer(b"{}", "200 OK", "Stripe-Notice: an sdk that warns must not lose the answer")),
         Sent.ANSWERED, 200, False),
    ],
)  # fmt: skip
def test_the_sdk_adds_no_retry_and_hides_no_fact(script: Script, sent: Sent, status: int | None, error: bool) -> None:
    with raw(script) as server:
        call = Call(1.0, KeptLease().guard)
        reply: Reply = StripeApi("sk_test_1", server.url).create({"amount": 1}, "k", call, in_doubt=False)
        assert (reply.step, reply.sent, reply.status) == (Step.CREATE, sent, status)
        assert (reply.error is not None, reply.body) == (error, None)
        assert len(server.requests) == 1


def test_a_refused_connection_was_not_sent_and_an_empty_key_never_leaves(charge: Attempt) -> None:
    with raw(says(b"")) as server:
        url = server.url
    outcome = provider(url).perform(charge, KeptLease())
    assert outcome == Deferred("not_sent_refused", None, {"step": "create", "replayed": False, "reason": "refused"})
    with pytest.raises(ValueError, match="empty"):
        StripeApi("sk_test_1", url).create({}, "", Call(1.0, KeptLease().guard), in_doubt=False)
