"""What each answer of the mail API proves, and that a message is the same bytes for ever."""

from __future__ import annotations

import email
import email.policy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.outcome import Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.http1 import Answer, Headers
from service.providers.mail.message import Unsendable, read_mail, render
from service.providers.mail.resend import classify
from service.providers.mail.smtp_session import stuff_dots

EFFECT = "01980f3e-7c00-7000-8000-000000000001"
PLAIN = {"to": "ada@example.test", "subject": "Receipt", "text": "Thank you.", "html": "<p>Thank you.</p>"}


def read(status: int, body: object, *, in_doubt: bool = False, headers: dict[str, str] | None = None) -> Outcome:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(Answer(status, Headers(headers or {}), raw, reusable=True), in_doubt=in_doubt)


@pytest.mark.parametrize(
    ("status", "body", "in_doubt", "kind"),
    [
        (200, {"id": "m1"}, False, Succeeded),
        (200, {"id": "m1"}, True, Succeeded),
        (200, {}, False, Unknown),
        (200, b"<html>", False, Unknown),
        (200, b"[]", False, Unknown),
        (409, {"name": "concurrent_idempotent_requests"}, True, Deferred),
        (409, {"name": "invalid_idempotent_request"}, True, Contradiction),
        (409, {"name": "something_new"}, False, Unknown),
        (422, {"name": "validation_error"}, False, Failed),
        (422, {"name": "validation_error"}, True, Unknown),
        (403, {"name": "validation_error"}, False, Failed),
        (400, b"<html>", False, Unknown),
        (403, {"name": "invalid_api_key"}, False, Deferred),
        (401, {"name": "missing_api_key"}, True, Deferred),
        (429, {"name": "rate_limit_exceeded"}, True, Deferred),
        (429, {"name": "daily_quota_exceeded"}, True, Deferred),
        (404, {"name": "not_found"}, False, Unknown),
        (302, b"", False, Unknown),
        (500, {"name": "application_error"}, False, Unknown),
        (502, b"<html>", True, Unknown),
    ],
)
def test_each_answer_proves_what_the_table_says(status: int, body: object, in_doubt: bool, kind: type) -> None:
    assert isinstance(read(status, body, in_doubt=in_doubt), kind)


def test_a_rate_limit_waits_as_long_as_resend_asks_and_a_quota_an_hour() -> None:
    limited = read(429, {"name": "rate_limit_exceeded"}, headers={"retry-after": "7"})
    quota = read(429, {"name": "daily_quota_exceeded"})
    assert isinstance(limited, Deferred)
    assert isinstance(quota, Deferred)
    assert (limited.after_seconds, quota.after_seconds) == (7.0, 3600.0)


@given(status=st.integers(100, 599), body=st.binary(max_size=40))
def test_i5_without_a_readable_answer_nothing_settles(status: int, body: bytes) -> None:
    assert not isinstance(read(status, b"{" + body), Failed | Contradiction)


def test_a_message_is_the_same_bytes_for_ever() -> None:
    mail = read_mail({**PLAIN, "subject": "Reçu n° 1", "text": "é\r\nsecond line\n" * 40}, "Büro <b@example.test>")
    assert render(EFFECT, mail) == render(EFFECT, mail)
    message = email.message_from_bytes(render(EFFECT, mail), policy=email.policy.default)
    assert message["Message-ID"] == f"<{EFFECT}@example.test>"
    assert message["Subject"] == "Reçu n° 1"
    assert message["Date"].datetime.year == 2025
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@given(text=st.text(max_size=200), html=st.none() | st.text(max_size=200), subject=st.text(max_size=80))
def test_whatever_the_text_a_message_has_crlf_lines_and_its_own_headers_only(
    text: str, html: str | None, subject: str
) -> None:
    try:
        mail = read_mail({**PLAIN, "text": text, "html": html, "subject": subject}, "shop@example.test")
    except Unsendable:
        return
    data = render(EFFECT, mail)
    assert data == render(EFFECT, mail)
    assert b"\n" not in data.replace(b"\r\n", b"")
    names = {name.lower() for name in email.message_from_bytes(data, policy=email.policy.default).keys()}  # noqa: SIM118 - not a dict
    assert names <= {
        "from", "to", "subject", "message-id", "date", "auto-submitted", "mime-version", "content-type",
        "content-transfer-encoding",
    }  # fmt: skip


@given(st.binary(max_size=60))
def test_no_line_of_a_message_can_be_the_final_dot(body: bytes) -> None:
    stuffed = stuff_dots(body)
    assert stuffed.endswith(b"\r\n")
    assert b".\r\n" not in [line + b"\r\n" for line in stuffed.split(b"\r\n")[:-1]]
