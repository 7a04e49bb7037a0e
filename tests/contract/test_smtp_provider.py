"""Mail by SMTP against the fake: nothing claimed that was not accepted, nothing repeated that the policy forbids."""

from __future__ import annotations

import email
import email.policy
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.core.effect import Attempt, LeaseLost, Policy
from service.core.outcome import Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.mail.smtp import Server, SmtpMail
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again, attempt

EFFECT = "01980f3e-7c00-7000-8000-{:012x}"  # a UUID version 7: the moment of acceptance is in it


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
    number = uuid.uuid4().int % 2**48
    request = {
        "to": f"ada-{number:x}@example.test",
        "subject": "Reçu",
        "text": "Merci.\n.point\n",
        "html": "<p>Merci.</p>",
    }
    return attempt(EFFECT.format(number), request, kind="email", policy=Policy.AT_LEAST_ONCE)


def provider(port: int, seconds: float = 10.0, *, user: str | None = None) -> SmtpMail:
    server = Server("127.0.0.1", port, user, "secret" if user else None)
    return SmtpMail(server, sender="Shop <shop@example.test>", deadline_seconds=seconds)


def perform(fake: FakeServer, mail: Attempt, lease: KeptLease) -> Outcome:
    return provider(fake.address["smtp_port"]).perform(mail, lease)


def copies(fake: FakeServer, mail: Attempt) -> list[dict[str, str]]:
    return [copy for copy in fake.admin("mailbox")["mail"] if copy["recipient"] == mail.request["to"]]


def test_a_message_is_accepted_once_under_its_own_id(fake: FakeServer, receipt: Attempt) -> None:
    lease = KeptLease()
    outcome = perform(fake, receipt, lease)
    (copy,) = copies(fake, receipt)
    assert outcome == Succeeded(
        f"<{receipt.id}@example.test>",
        {"message_id": f"<{receipt.id}@example.test>"},
        {"phase": "replied", "unanswered": 0, "status": 250},
    )
    assert copy["message_id"] == outcome.ref
    assert lease.records == [{"phase": "committing", "unanswered": 1}]


def test_a_login_is_used_when_the_url_names_one(fake: FakeServer, receipt: Attempt) -> None:
    outcome = provider(fake.address["smtp_port"], user="shop").perform(receipt, KeptLease())
    assert isinstance(outcome, Succeeded | Deferred)  # a server may refuse logins without TLS; then nothing was sent
    assert len(copies(fake, receipt)) == isinstance(outcome, Succeeded)


@pytest.mark.parametrize("phase", ["banner", "ehlo", "mail", "rcpt", "data", "mid_data"])
def test_a_connection_cut_before_the_dot_was_not_sent_and_the_next_attempt_sends_one(
    fake: FakeServer, receipt: Attempt, phase: str
) -> None:
    mail = attempt(receipt.id, receipt.request, kind="email", policy=Policy.AT_MOST_ONCE)
    fake.fault("close", phase=phase)
    lease = KeptLease()
    outcome = perform(fake, mail, lease)
    if phase == "mid_data":
        # The server gave up while the whole message, dot included, was on its way: only the marker decides.
        assert isinstance(outcome, Deferred | Unknown)
        assert isinstance(outcome, Unknown) == bool(lease.records)
        return
    assert isinstance(outcome, Deferred)
    assert lease.records == []
    assert perform(fake, mail, lease) == Succeeded(*_told(mail))
    assert len(copies(fake, mail)) == 1


def _told(mail: Attempt) -> tuple[str, dict[str, str], dict[str, object]]:
    ref = f"<{mail.id}@example.test>"
    return ref, {"message_id": ref}, {"phase": "replied", "unanswered": 0, "status": 250}


@pytest.mark.parametrize(("code", "kind"), [(421, Deferred), (451, Deferred), (550, Failed)])
@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "before_accept"])
def test_a_refusal_comes_again_or_is_final_by_its_code(
    fake: FakeServer, receipt: Attempt, phase: str, code: int, kind: type
) -> None:
    fake.fault("reject", phase=phase, code=code)
    lease = KeptLease()
    outcome = perform(fake, receipt, lease)
    assert isinstance(outcome, kind)
    assert outcome.evidence["status"] == code
    assert copies(fake, receipt) == []
    if phase == "before_accept":  # an answered dot leaves no doubt behind
        assert lease.records[-1] == {"phase": "refused", "unanswered": 0}
        assert isinstance(perform(fake, again(receipt, lease), KeptLease()), Succeeded)
        assert len(copies(fake, receipt)) == 1


@pytest.mark.parametrize(("phase", "kept"), [("before_accept", 0), ("after_accept", 1)])
def test_a_dot_without_reply_is_unknown_and_at_most_once_never_sends_again(
    fake: FakeServer, receipt: Attempt, phase: str, kept: int
) -> None:
    mail = attempt(receipt.id, receipt.request, kind="email", policy=Policy.AT_MOST_ONCE)
    fake.fault("close", phase=phase)
    lease = KeptLease()
    outcome = perform(fake, mail, lease)
    assert isinstance(outcome, Unknown)
    assert outcome.evidence["phase"] == "dot"
    second = perform(fake, again(mail, lease), KeptLease())
    assert isinstance(second, Unknown)
    assert second.reason == "blind_unknown"
    assert len(copies(fake, mail)) == kept


def test_at_least_once_sends_identical_bytes_again_and_says_so(fake: FakeServer, receipt: Attempt) -> None:
    fake.fault("close", phase="after_accept")
    lease = KeptLease()
    assert isinstance(perform(fake, receipt, lease), Unknown)
    outcome = perform(fake, again(receipt, lease), KeptLease())
    assert isinstance(outcome, Succeeded)
    assert outcome.detail["possible_duplicate"] is True
    first, second = copies(fake, receipt)
    assert first["message_id"] == second["message_id"]
    assert first["raw"] == second["raw"]


def test_at_least_once_has_an_end(fake: FakeServer, receipt: Attempt) -> None:
    fake.fault("close", phase="after_accept", recipient=receipt.request["to"], times=None)
    mail, outcomes = receipt, []
    for _ in range(5):
        lease = KeptLease()
        outcomes.append(perform(fake, mail, lease))
        mail = again(mail, lease)
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Unknown)] == ["no_answer"] * 3 + [
        "blind_unknown"
    ] * 2
    assert len(copies(fake, receipt)) == 3


def test_a_final_refusal_after_a_possible_copy_is_no_proof_of_absence(fake: FakeServer, receipt: Attempt) -> None:
    fake.fault("close", phase="after_accept")
    lease = KeptLease()
    perform(fake, receipt, lease)
    fake.fault("reject", phase="rcpt", code=550)
    outcome = perform(fake, again(receipt, lease), KeptLease())
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "blind_unknown"


@pytest.mark.parametrize("guard", [1, 2])
def test_i9_a_lost_lease_sends_no_dot(fake: FakeServer, receipt: Attempt, guard: int) -> None:
    with pytest.raises(LeaseLost):
        perform(fake, receipt, KeptLease(lost_at=guard))
    assert copies(fake, receipt) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": "ada@example.test\r\nBcc: eve@example.test"},
        {"to": "ada@example.test, eve@example.test"},
        {"to": "ada@example.test>\nRCPT TO:<eve@example.test"},
        {"subject": "Hello\r\nBcc: eve@example.test"},
        {"sender": "Shop\n <shop@example.test>"},
        {"to": ""},
    ],
)
def test_nothing_can_be_injected_into_a_message(fake: FakeServer, receipt: Attempt, wrong: dict[str, str]) -> None:
    before = len(fake.admin("mailbox")["mail"])
    mail = attempt(receipt.id, {**receipt.request, **wrong}, kind="email")
    outcome = perform(fake, mail, KeptLease())
    assert isinstance(outcome, Failed)
    assert outcome.code == "invalid_message"
    assert "eve" not in outcome.message
    assert len(fake.admin("mailbox")["mail"]) == before


def test_a_refused_connection_was_not_sent(receipt: Attempt) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert isinstance(provider(port).perform(receipt, KeptLease()), Deferred)


def test_a_dripping_server_cannot_hold_the_dialogue(receipt: Attempt) -> None:
    closing = threading.Event()

    def drip(listener: socket.socket) -> None:
        conn, _ = listener.accept()
        with conn, suppress(OSError):
            for letter in b"220 " + b"x" * 3000:
                conn.sendall(bytes([letter]))
                if closing.wait(0.05):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        started = time.monotonic()
        outcome = provider(listener.getsockname()[1], seconds=0.5).perform(receipt, KeptLease())
        closing.set()
        thread.join(5)
    assert isinstance(outcome, Deferred)
    assert time.monotonic() - started < 20  # the whole greeting would take minutes


def test_what_arrives_is_the_message_that_was_meant(fake: FakeServer, receipt: Attempt) -> None:
    perform(fake, receipt, KeptLease())
    (copy,) = copies(fake, receipt)
    message = email.message_from_string(copy["raw"], policy=email.policy.default)
    body = message.get_body(("plain",))
    assert message["Subject"] == "Reçu"
    assert body is not None
    assert body.get_content().splitlines() == ["Merci.", ".point"]
