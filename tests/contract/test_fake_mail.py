"""The mail fake keeps every accepted copy, fails in each phase as told, and knows Resend's keys."""

from __future__ import annotations

import json
import smtplib
import urllib.error
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.fake_servers import FakeServer, running, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("mail", tmp_path_factory.mktemp("mail")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture
def own_fake(tmp_path: Path) -> Iterator[FakeServer]:
    """A fake that the test may kill."""
    with running("mail", tmp_path / "mail") as fake:
        yield fake


@pytest.fixture
def ada() -> str:
    """A recipient nobody else uses: the mailbox is never emptied."""
    return f"ada-{uuid.uuid4().hex}@example.test"


def smtp(fake: FakeServer, recipient: str, message_id: str | None = None) -> dict[str, Any]:
    message = EmailMessage()
    message["From"] = "shop@example.test"
    message["To"] = recipient
    message["Subject"] = "Receipt"
    message["Message-ID"] = message_id or f"<{uuid.uuid4().hex}@example.test>"
    message.set_content("Thank you.\n.leading dot\n")
    with smtplib.SMTP("127.0.0.1", fake.address["smtp_port"], timeout=5) as client:
        return dict(client.send_message(message))


def resend(fake: FakeServer, recipient: str, key: str | None = None, **more: Any) -> requests.Response:
    headers = {"Authorization": "Bearer re_1", **({"Idempotency-Key": key} if key else {})}
    body = {"from": "Shop <shop@example.test>", "to": [recipient], "subject": "Receipt", "text": "Thank you.", **more}
    return requests.post(f"{fake.address['http_url']}/emails", json=body, headers=headers, timeout=10)


def copies(fake: FakeServer, recipient: str) -> list[dict[str, Any]]:
    return [mail for mail in fake.admin("mailbox")["mail"] if mail["recipient"] == recipient]


# --- SMTP ----------------------------------------------------------------------------------------


def test_an_accepted_message_is_kept_as_it_was_sent(fake: FakeServer, ada: str) -> None:
    assert smtp(fake, ada, "<one@example.test>") == {}
    (mail,) = copies(fake, ada)
    assert (mail["via"], mail["sender"], mail["subject"]) == ("smtp", "shop@example.test", "Receipt")
    assert mail["message_id"] == mail["headers"]["Message-ID"] == "<one@example.test>"
    assert "\r\n.leading dot\r\n" in mail["raw"]


def test_the_same_message_id_twice_is_two_copies(fake: FakeServer, ada: str) -> None:
    for _ in range(2):
        smtp(fake, ada, "<twice@example.test>")
    assert len(copies(fake, ada)) == 2
    summary = fake.admin("mailbox")["summary"]
    assert f"<twice@example.test> {ada}" in summary["doubled"]
    assert summary["by_message_and_recipient"][f"<twice@example.test> {ada}"] == 2


def session(fake: FakeServer, recipient: str) -> list[tuple[str, int | None, str | None]]:
    """What the request log tells about the session that named this recipient: phase, reply, fault."""
    rows = fake.admin("requests")["requests"]
    (one,) = {row["request_id"] for row in rows if row["method"] == "SMTP" and row["path"] == recipient}
    return [(row["route"], row["status"], row["fault"]) for row in rows if row["request_id"] == one]


def test_a_session_is_in_the_request_log_phase_by_phase(fake: FakeServer, ada: str) -> None:
    smtp(fake, ada)
    expected = [
        ("banner", 220, None),
        ("ehlo", 250, None),
        ("mail", 250, None),
        ("rcpt", 250, None),
        ("data", 354, None),
        ("mid_data", None, None),
        ("before_accept", None, None),
        ("after_accept", 250, None),
        ("quit", 221, None),
    ]
    wait_until(lambda: session(fake, ada) == expected, "the whole session in the log")


def test_a_lost_250_is_a_phase_without_a_reply_that_names_its_fault(fake: FakeServer, ada: str) -> None:
    fake.fault("close", phase="after_accept", recipient=ada)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        smtp(fake, ada)
    wait_until(lambda: session(fake, ada)[-1] == ("after_accept", None, "close"), "the cut in the log")
    assert len(copies(fake, ada)) == 1


def test_a_rejection_is_logged_with_its_code(fake: FakeServer, ada: str) -> None:
    fake.fault("reject", phase="before_accept", recipient=ada, code=452)
    with pytest.raises(smtplib.SMTPDataError):
        smtp(fake, ada)
    wait_until(lambda: ("before_accept", 452, "reject") in session(fake, ada), "the rejection in the log")


def test_a_session_can_be_reset_and_can_hang_until_it_is_released(fake: FakeServer, ada: str) -> None:
    fake.fault("reset", phase="before_accept", recipient=ada)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        smtp(fake, ada)
    fake.fault("hang", phase="after_accept", recipient=ada, seconds=None)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(smtp, fake, ada)
        wait_until(lambda: fake.holding() == 1, "the reply that is held back")
        assert len(copies(fake, ada)) == 1
        fake.admin("release", {})
        assert hanging.result(10) == {}


@pytest.mark.parametrize("door", ["smtp", "http"])
def test_each_door_can_be_shut_without_the_other(fake: FakeServer, ada: str, door: str) -> None:
    fake.fault("refuse", route=door, seconds=None)
    shut, open_ = (smtp, resend) if door == "smtp" else (resend, smtp)
    with pytest.raises((ConnectionRefusedError, requests.ConnectionError)):
        shut(fake, ada)
    open_(fake, ada)
    assert len(copies(fake, ada)) == 1
    fake.admin("release", {})

    def opened() -> bool:
        try:
            shut(fake, ada)
        except (ConnectionRefusedError, requests.ConnectionError):
            return False
        return True

    wait_until(opened, "the open door")
    assert len(copies(fake, ada)) == 2


@pytest.mark.parametrize(
    ("phase", "kept"),
    [
        ("banner", 0),
        ("ehlo", 0),
        ("mail", 0),
        ("rcpt", 0),
        ("data", 0),
        ("mid_data", 0),
        ("before_accept", 0),
        ("after_accept", 1),
        ("quit", 1),
    ],
)
def test_a_connection_cut_in_a_phase_keeps_what_that_phase_says(
    fake: FakeServer, ada: str, phase: str, kept: int
) -> None:
    fake.fault("close", phase=phase)
    if phase == "quit":
        smtp(fake, ada)
    else:
        with pytest.raises((smtplib.SMTPException, ConnectionError)):
            smtp(fake, ada)
    assert fake.hits() == 1
    assert len(copies(fake, ada)) == kept
    smtp(fake, ada)
    assert len(copies(fake, ada)) == kept + 1


@pytest.mark.parametrize("code", [421, 451, 550])
def test_a_recipient_is_rejected_with_the_code_asked_for(fake: FakeServer, ada: str, code: int) -> None:
    fake.fault("reject", phase="rcpt", recipient="bounce-*@example.test", code=code, times=None)
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        smtp(fake, f"bounce-{ada}")
    assert refused.value.recipients[f"bounce-{ada}"][0] == code
    assert smtp(fake, ada) == {}
    assert len(copies(fake, ada)) == 1


@pytest.mark.parametrize("phase", ["banner", "ehlo", "mail", "data", "before_accept"])
def test_a_rejection_in_a_phase_keeps_nothing(fake: FakeServer, ada: str, phase: str) -> None:
    # smtplib says HELO when EHLO is refused, and then gets its message through.
    fake.fault("reject", phase=phase, code=554)
    if phase == "ehlo":
        smtp(fake, ada)
    else:
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            smtp(fake, ada)
        assert refused.value.smtp_code == 554
        assert copies(fake, ada) == []
    assert fake.hits() == 1


def test_a_held_final_dot_is_kept_but_not_answered_until_released(fake: FakeServer, ada: str) -> None:
    fake.fault("barrier", phase="after_accept", recipient=ada)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(smtp, fake, ada)
        wait_until(lambda: fake.holding() == 1, "the message held after it was accepted")
        assert len(copies(fake, ada)) == 1
        assert not sending.done()
        fake.admin("release", {})
        assert sending.result(10) == {}


@pytest.mark.parametrize(("phase", "kept"), [("before_accept", 0), ("after_accept", 1)])
def test_a_crash_around_the_accept_keeps_all_or_nothing(own_fake: FakeServer, ada: str, phase: str, kept: int) -> None:
    own_fake.fault("crash", phase=phase)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        smtp(own_fake, ada)
    assert own_fake.wait_dead() == -9
    own_fake.start()
    assert len(copies(own_fake, ada)) == kept
    assert own_fake.stop() == 0


def test_a_login_is_let_in(fake: FakeServer) -> None:
    with smtplib.SMTP("127.0.0.1", fake.address["smtp_port"], timeout=5) as client:
        assert client.login("shop", "any word")[0] == 235


# --- Resend --------------------------------------------------------------------------------------


def test_a_key_sends_once_and_returns_the_first_id(fake: FakeServer, ada: str) -> None:
    first, second = resend(fake, ada, key=ada), resend(fake, ada, key=ada)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    (mail,) = copies(fake, ada)
    assert (mail["via"], mail["id"], mail["idempotency_key"]) == ("resend", first.json()["id"], ada)
    shown = requests.get(
        f"{fake.address['http_url']}/emails/{mail['id']}", headers={"Authorization": "Bearer re_1"}, timeout=10
    )
    assert (shown.json()["id"], shown.json()["subject"], shown.json()["to"]) == (mail["id"], "Receipt", [ada])


def test_without_a_key_or_after_a_day_it_is_sent_again(own_fake: FakeServer, ada: str) -> None:
    for _ in range(2):
        resend(own_fake, ada)
    assert len(copies(own_fake, ada)) == 2
    first = resend(own_fake, ada, key=ada).json()
    own_fake.advance(hours=25)
    assert resend(own_fake, ada, key=ada).json() != first
    assert len(copies(own_fake, ada)) == 4


def test_a_key_with_another_payload_is_refused(fake: FakeServer, ada: str) -> None:
    resend(fake, ada, key=ada)
    refused = resend(fake, ada, key=ada, text="Something else.")
    assert (refused.status_code, refused.json()["name"]) == (409, "invalid_idempotent_request")
    assert len(copies(fake, ada)) == 1


def test_a_key_in_flight_is_told_to_wait(fake: FakeServer, ada: str) -> None:
    fake.fault("barrier", route="emails", key=ada)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(resend, fake, ada, ada)
        wait_until(lambda: fake.holding() == 1, "the first request at the barrier")
        second = resend(fake, ada, key=ada)
        assert (second.status_code, second.json()["name"]) == (409, "concurrent_idempotent_requests")
        fake.admin("release", {})
        assert first.result(10).status_code == 200
    assert len(copies(fake, ada)) == 1


@pytest.mark.parametrize(
    "wrong", [{"subject": ""}, {"to": []}, {"from": "nobody"}, {"text": ""}, {"to": ["not an address"]}, {"colour": 1}]
)
def test_a_wrong_payload_is_a_422_and_leaves_the_key_free(fake: FakeServer, ada: str, wrong: dict[str, Any]) -> None:
    assert resend(fake, ada, key=ada, **wrong).status_code == 422
    assert resend(fake, ada, key=ada).status_code == 200


def test_strangers_and_long_keys_stay_outside(fake: FakeServer, ada: str) -> None:
    stranger = requests.post(f"{fake.address['http_url']}/emails", json={}, timeout=10)
    assert stranger.status_code == 401
    assert resend(fake, ada, key="k" * 256).status_code == 200
    too_long = resend(fake, ada, key="k" * 257)
    assert (too_long.status_code, too_long.json()["name"]) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    ("action", "kept"),
    [
        ("close_before", 0),
        ("close_after", 1),
        ("reset", 1),
        ("close", 1),
        ("truncate", 1),
        ("truncate_chunked", 1),
        ("empty_200", 1),
        ("html_200", 1),
        ("status_502_html", 0),
    ],
)
def test_a_lost_answer_is_settled_by_the_same_key(fake: FakeServer, ada: str, action: str, kept: int) -> None:
    fake.fault(action, key=ada)
    try:
        answer = resend(fake, ada, key=ada)
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    except requests.RequestException:
        pass
    assert len(copies(fake, ada)) == kept
    assert resend(fake, ada, key=ada).status_code == 200
    assert len(copies(fake, ada)) == 1


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_its_own_500_is_kept_or_forgotten_as_the_profile_says(
    own_fake: FakeServer, ada: str, when: str, kept: int
) -> None:
    # Resend's documents do not say what becomes of a 500, so a client must be right either way.
    for profile, status, copies_then in (("stripe", 500, kept), ("forgets_500", 200, kept + 1)):
        own_fake.admin("keys", {"profile": profile})
        key, recipient = f"{profile}-{ada}", f"{profile}-{ada}"
        own_fake.fault(f"status_500_stored_{when}", key=key)
        assert resend(own_fake, recipient, key=key).status_code == 500
        assert len(copies(own_fake, recipient)) == kept
        assert resend(own_fake, recipient, key=key).status_code == status
        assert len(copies(own_fake, recipient)) == copies_then


@pytest.mark.parametrize(("action", "status"), [("status_429", 429), ("status_401", 401), ("conflict_409", 409)])
def test_a_front_answer_leaves_the_key_free(fake: FakeServer, ada: str, action: str, status: int) -> None:
    fake.fault(action, key=ada)
    assert resend(fake, ada, key=ada).status_code == status
    assert copies(fake, ada) == []
    assert resend(fake, ada, key=ada).status_code == 200


def test_a_fault_finds_a_recipient_in_the_body(fake: FakeServer, ada: str) -> None:
    fake.fault("status_429", effect=ada)
    assert resend(fake, f"not-{ada[1:]}").status_code == 200
    assert resend(fake, ada).status_code == 429


def test_repairs_are_for_providers_with_events(fake: FakeServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="422"):
        fake.admin("faults", {"action": "status_500_stored_after", "then": "silence"})
