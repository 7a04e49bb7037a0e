"""What the real SDK makes of each event on the wire, one row each: one request, the facts kept, the outcome they prove.

The SDK's own rules would repeat some of these, follow the redirect, and lose the code of a 409 (stripe-python,
"Handling errors"; Stripe: Idempotent requests; Error codes). Here every repeat belongs to the outbox.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from service.core.outcome import Contradiction, Deferred, Failed, Outcome, Unknown
from service.providers.stripe.answers import Expected, ExpectedRefund, Next, Reply, Sent, Step, classify
from service.providers.stripe.api import Call, StripeApi
from tests.contract.leases import KeptLease
from tests.contract.paid import word
from tests.contract.raw_server import Script, answer, drips, raw, says

ROWS = 31
CALL_SECONDS = 0.5  # what the hanging and the dripping server are waited for
OK, BAD = "200 OK", "400 Bad Request"
RETRY, NO_RETRY = "Stripe-Should-Retry: true", "Stripe-Should-Retry: false"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b'{"object":"payment_intent",'
CUT_CHUNK = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"object":'


@dataclass(frozen=True)
class Row:
    """`first` and `doubt`: the outcome of a first send, and of a re-send that an unanswered one came before."""

    event: str
    script: Script | None
    sent: Sent
    status: int | None
    first: tuple[type, str]
    doubt: tuple[type, str]
    code: str | None = None
    requests: int = 1


def error(kind: str, code: str | None = None, **more: Any) -> bytes:
    return json.dumps({"error": {"type": kind, "message": "No.", **({"code": code} if code else {}), **more}}).encode()


def broken(event: str, script: Script, reason: str) -> Row:
    """No whole answer: whatever was sent may have been carried out."""
    outcome = (Unknown, f"no_answer_{reason}")
    return Row(event, script, Sent.MAYBE, None, outcome, outcome)


def told(event: str, data: bytes, kind: type, reason: str, *, doubt: tuple[type, str] | None = None) -> Row:
    """A whole answer, and what it proves."""
    status = int(data.split(b" ", 2)[1])
    body = data.partition(b"\r\n\r\n")[2]
    found = json.loads(body)["error"] if body.startswith(b'{"error"') else {}
    code = found.get("code") or found.get("type")
    return Row(event, says(data), Sent.ANSWERED, status, (kind, reason), doubt or (kind, reason), code)


INVALID = error("invalid_request_error", "parameter_invalid_integer")
MISMATCH = error("idempotency_error")
API = error("api_error")
IN_USE = "idempotency_key_in_use"
FRONT = (Unknown, "refused_in_front")

TABLE = [
    broken("FIN before the answer", says(b"", close=True), "torn"),
    broken("RST before the answer", says(b"", reset=True), "reset"),
    broken("read timeout", says(b""), "timeout"),
    broken("an answer that drips past the deadline", drips(answer(b"{" * 200)), "timeout"),
    Row("refused", None, Sent.NOT_SENT, None, (Deferred, "not_sent_refused"), (Deferred, "not_sent_refused"), requests=0),
    broken("200 cut by length", says(CUT, close=True), "torn"),
    broken("200 cut by chunk", says(CUT_CHUNK, close=True), "torn"),
    broken("200 cut by a reset", says(CUT, reset=True), "reset"),
    told("200 empty", answer(b""), Unknown, "unreadable"),
    told("200 HTML", answer(b"<html><body>hello</body></html>"), Unknown, "unreadable"),
    told("200 half JSON", answer(b'{"object":"payment_intent","id":'), Unknown, "unreadable"),
    told("200 with another object", answer(b'{"object":"charge","id":"ch_1"}'), Unknown, "unreadable"),
    told("502 HTML", answer(b"<html>bad gateway</html>", "502 Bad Gateway"), Unknown, "status_502"),
    told("503 empty", answer(b"", "503 Service Unavailable"), Unknown, "status_503"),
    told("500 JSON", answer(API, "500 Internal Server Error"), Unknown, "status_500"),
    told("500 should-retry:false", answer(API, "500 Internal Server Error", NO_RETRY), Unknown, "status_500"),
    told("500 should-retry:true", answer(API, "500 Internal Server Error", RETRY), Unknown, "status_500"),
    told("409 invalid_request_error", answer(error("invalid_request_error", IN_USE), "409 Conflict", RETRY),
         Deferred, "in_progress"),
    told("409 idempotency_error", answer(error("idempotency_error", IN_USE), "409 Conflict"), Deferred, "in_progress"),
    told("409 of an unknown type", answer(error("novel_error"), "409 Conflict"), Deferred, "in_progress"),
    told("400 idempotency_error", answer(MISMATCH, BAD), Contradiction, "idempotency_error"),
    told("404 idempotency_error", answer(MISMATCH, "404 Not Found"), Contradiction, "idempotency_error"),
    told("other 400", answer(INVALID, BAD), Failed, "parameter_invalid_integer", doubt=FRONT),
    told("other 404", answer(error("invalid_request_error", "resource_missing"), "404 Not Found"),
         Failed, "resource_missing", doubt=FRONT),
    told("401", answer(error("invalid_request_error"), "401 Unauthorized"), Deferred, "access_refused"),
    told("402", answer(error("card_error", "card_declined"), "402 Payment Required"), Failed, "card_declined"),
    told("403", answer(error("invalid_request_error"), "403 Forbidden"), Deferred, "access_refused"),
    told("429", answer(error("invalid_request_error", "rate_limit"), "429 Too Many Requests"), Deferred, "rate_limited"),
    told("429 should-retry:true", answer(error("invalid_request_error", "lock_timeout"), "429 Too Many Requests", RETRY),
         Deferred, "rate_limited"),
    told("redirect 302", answer(b"", "302 Found", "Location: /v1/payment_intents/pi_1"), Unknown, "status_302"),
    told("redirect 307", answer(b"", "307 Temporary Redirect", "Location: /v1/other"), Unknown, "status_307"),
]  # fmt: skip


def send(url: str, step: Step, *, in_doubt: bool) -> tuple[Reply, Outcome | Next]:
    api, call = StripeApi("sk_test_1", url), Call(CALL_SECONDS, KeptLease().guard)
    if step is Step.REFUND:
        refund = api.refund({"payment_intent": "pi_1", "amount": 4200}, "e1:refund", call, in_doubt=in_doubt)
        return refund, classify(refund, ExpectedRefund("e1", 4200, "eur", "pi_1"))
    reply = api.confirm("pi_1", {"off_session": True}, "e1:confirm", call, in_doubt=in_doubt)
    return reply, classify(reply, Expected("e1", 4200, "eur", livemode=False, intent="pi_1"))


@pytest.mark.parametrize("in_doubt", [False, True], ids=["first send", "in doubt"])
@pytest.mark.parametrize("step", [Step.CONFIRM, Step.REFUND])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.event)
def test_each_event_is_one_request_and_proves_what_the_table_says(row: Row, step: Step, in_doubt: bool) -> None:
    with raw(row.script or says(b"")) as server:
        if row.script is None:
            server.close()
        reply, outcome = send(server.url, step, in_doubt=in_doubt)
        assert len(server.requests) == row.requests
        assert server.connections == row.requests
    assert (reply.step, reply.sent, reply.status, reply.in_doubt) == (step, row.sent, row.status, in_doubt)
    assert reply.body is None
    assert (reply.error is not None) is (row.code is not None)
    assert reply.evidence().get("code") == row.code
    kind, reason = row.doubt if in_doubt else row.first
    assert (type(outcome), word(outcome)) == (kind, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.event)
def test_a_read_that_fails_leaves_everything_as_it_was(row: Row) -> None:
    """The same events, met by a look-up: it had no effect, so nothing becomes unknown by it."""
    with raw(row.script or says(b"")) as server:
        if row.script is None:
            server.close()
        reply = StripeApi("sk_test_1", server.url).look_up("/v1/events", {}, Call(CALL_SECONDS, KeptLease().guard))
        assert len(server.requests) == row.requests
    outcome = classify(reply, Expected("e1", 4200, "eur", livemode=False))
    if row.first[0] is Contradiction:
        assert isinstance(outcome, Contradiction)  # cannot be: a read carries no key
    else:
        assert isinstance(outcome, Deferred)


def test_the_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(TABLE) == len({row.event for row in TABLE}) == ROWS
    with capsys.disabled():
        sys.stdout.write(f"\nwire table: {ROWS} rows, for a first send and in doubt, by confirm, refund and look-up\n")
