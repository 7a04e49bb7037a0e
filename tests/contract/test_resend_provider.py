"""Mail by Resend's API against the fake: an unknown outcome is settled by the same key, so one copy arrives."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from service.core.effect import Attempt, LeaseLost, Policy
from service.core.outcome import Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.mail.resend import ResendMail
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again, attempt
from tests.contract.raw_server import answer, raw, says


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("mail", tmp_path_factory.mktemp("mail")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture
def receipt() -> Attempt:
    """A first attempt to a recipient nobody else uses: the mailbox is never emptied."""
    effect = str(uuid.uuid4())
    request = {"to": f"ada-{effect}@example.test", "subject": "Receipt", "text": "Thank you."}
    return attempt(effect, request, kind="email")


def provider(url: str, seconds: float = 10.0) -> ResendMail:
    return ResendMail(url, "re_1", sender="Shop <shop@example.test>", deadline_seconds=seconds)


def perform(fake: FakeServer, mail: Attempt, lease: KeptLease, seconds: float = 10.0) -> Outcome:
    return provider(fake.address["http_url"], seconds).perform(mail, lease)


def copies(fake: FakeServer, mail: Attempt) -> list[dict[str, Any]]:
    return [copy for copy in fake.admin("mailbox")["mail"] if copy["recipient"] == mail.request["to"]]


def test_an_accepted_message_has_resends_id(fake: FakeServer, receipt: Attempt) -> None:
    outcome = perform(fake, receipt, KeptLease())
    (copy,) = copies(fake, receipt)
    assert isinstance(outcome, Succeeded)
    assert outcome.detail == {"id": outcome.ref}
    assert copy["idempotency_key"] == f"{receipt.id}:send"


@pytest.mark.parametrize("action", ["close_before", "close_after", "truncate", "status_502_html", "hang"])
def test_w7_w8_a_lost_answer_is_settled_by_the_same_key(fake: FakeServer, receipt: Attempt, action: str) -> None:
    fake.fault(action, key=receipt.id, seconds=3)
    lease = KeptLease()
    assert isinstance(perform(fake, receipt, lease, seconds=1.0), Unknown)
    outcome = perform(fake, again(receipt, lease), KeptLease())
    while isinstance(outcome, Deferred):
        assert outcome.reason == "in_progress"
        outcome = perform(fake, again(receipt, lease), KeptLease())
    assert isinstance(outcome, Succeeded)
    assert len(copies(fake, receipt)) == 1


@pytest.mark.parametrize(
    ("action", "reason"),
    [("status_401", "access_refused"), ("status_429", "rate_limited"), ("conflict_409", "in_progress")],
)
def test_a_front_answer_defers(fake: FakeServer, receipt: Attempt, action: str, reason: str) -> None:
    fake.fault(action, key=receipt.id)
    outcome = perform(fake, receipt, KeptLease())
    assert isinstance(outcome, Deferred)
    assert outcome.reason == reason
    assert copies(fake, receipt) == []


def test_i4_another_payload_under_our_key_is_a_contradiction(fake: FakeServer, receipt: Attempt) -> None:
    perform(fake, receipt, KeptLease())
    other = attempt(receipt.id, {**receipt.request, "subject": "Other"}, kind="email")
    assert isinstance(perform(fake, other, KeptLease()), Contradiction)
    assert len(copies(fake, receipt)) == 1


def test_a_validation_error_fails_on_a_first_send_and_proves_nothing_in_doubt(
    fake: FakeServer, receipt: Attempt
) -> None:
    empty = attempt(receipt.id, {**receipt.request, "subject": ""}, kind="email")
    assert isinstance(perform(fake, empty, KeptLease()), Failed)
    assert isinstance(perform(fake, again(empty, KeptLease()), KeptLease()), Unknown)


@pytest.mark.parametrize("policy", list(Policy))
def test_past_the_horizon_nothing_is_sent_whatever_the_policy(
    fake: FakeServer, receipt: Attempt, policy: Policy
) -> None:
    perform(fake, receipt, KeptLease())
    fake.advance(hours=25)
    expired = perform(fake, again(receipt, KeptLease(), policy=policy), KeptLease(past_horizon=True))
    assert expired == Unknown("key_expired")
    assert len(copies(fake, receipt)) == 1


def test_i9_a_lost_lease_sends_nothing(fake: FakeServer, receipt: Attempt) -> None:
    with pytest.raises(LeaseLost):
        perform(fake, receipt, KeptLease(lost_at=1))
    assert copies(fake, receipt) == []


def test_i6_each_try_sends_the_same_bytes(receipt: Attempt) -> None:
    mail = attempt(receipt.id, {**receipt.request, "html": "<p>Thank you.</p>", "sender": "Büro <b@example.test>"})
    with raw(says(answer(b"", "500 Internal Server Error"))) as server:
        for _ in range(2):
            assert isinstance(provider(server.url).perform(mail, KeptLease()), Unknown)
        first, second = server.requests
    assert first == second
    head, _, body = first.partition(b"\r\n\r\n")
    assert f"Idempotency-Key: {receipt.id}:send".encode() in head
    assert json.loads(body)["to"] == [mail.request["to"]]
