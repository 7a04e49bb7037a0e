"""The outcome table: what each answer proves and what is written, a row for Stripe's 25 and for mail's 8 and 7.

Rows 1 to 25 are what can become of a Stripe call (Stripe: Idempotent requests; Advanced error handling; Error codes),
K1 to K8 of a keyed mail API (Resend: Idempotency Keys; Errors), S1 to S7 of SMTP (RFC 5321 §4.2.5, §4.5.3.2.6; RFC
1047). A letter marks a variant. Where a row says `sends` or `looks`, the attempt goes on and nothing is written yet.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from service.core.effect import Guarantee, Policy
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import TRANSITIONS, State
from service.engine.settlement import settlement
from service.providers.http1 import Answer, Headers
from service.providers.mail import resend, smtp
from service.providers.mail.resend import ResendMail
from service.providers.mail.smtp import SENDS_MAX, accepted, before_sending
from service.providers.mail.smtp_session import Phase
from service.providers.stripe.answers import (
    Expectation,
    Expected,
    ExpectedCancel,
    ExpectedCapture,
    ExpectedRefund,
    Next,
    Reply,
    Sent,
    Step,
    classify,
    otherwise,
)
from service.providers.stripe.api import StripeApi
from service.providers.stripe.attempt import ABSENCE_SPACING_SECONDS, MISSED_AT, StripeAttempt, StripeProvider
from service.store.attempts import Limits
from tests.contract.leases import KeptLease, attempt
from tests.contract.raw_server import Script, answer, raw, says

STRIPE = [str(number) for number in range(1, 26)]
MAIL = [f"K{number}" for number in range(1, 9)] + [f"S{number}" for number in range(1, 8)]
LIMITS = Limits(lease=90.0, budget=60, age_limit=3 * 86400.0)
HOUR = 3600.0

PENDING, UNKNOWN, AWAITING, PARKED = State.PENDING, State.UNKNOWN, State.AWAITING, State.PARKED
SUCCEEDED, FAILED = State.SUCCEEDED, State.FAILED
KEYED, BLIND = Guarantee.KEYED, Guarantee.BLIND
ONCE, REPEAT = Policy.AT_MOST_ONCE, Policy.AT_LEAST_ONCE
CREATE, CONFIRM, RETRIEVE, REFUND, LOOK_UP = Step.CREATE, Step.CONFIRM, Step.RETRIEVE, Step.REFUND, Step.LOOK_UP

CHARGE = Expected("e1", 4200, "eur", livemode=False)
HELD = Expected("e1", 4200, "eur", livemode=False, manual=True)
GIVEN = ExpectedRefund("e2", 1000, "eur", "pi_1")
TAKEN = ExpectedCapture("e3", "e1", 4000, "eur", livemode=False, intent="pi_1")
ENDED = ExpectedCancel("e4", "e1", livemode=False, intent="pi_1")
INTENT = {"id": "pi_1", "amount": 4200, "currency": "eur", "livemode": False, "metadata": {"effect_id": "e1"},
          "latest_charge": "ch_1"}  # fmt: skip
GAVE = {"id": "re_1", "amount": 1000, "currency": "eur", "payment_intent": "pi_1", "metadata": {"effect_id": "e2"}}
CARD = {"type": "card_error", "code": "card_declined"}
ACTION = {"type": "card_error", "code": "authentication_required"}
STATE = {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}
MISMATCH = {"type": "idempotency_error"}
INVALID = {"type": "invalid_request_error", "code": "parameter_invalid"}
IN_USE = {"type": "invalid_request_error", "code": "idempotency_key_in_use"}
TAKEN_BACK = {"type": "invalid_request_error", "code": "charge_already_refunded"}
TOO_MUCH = {"type": "invalid_request_error", "param": "amount"}

Told = Outcome | Next | None
"""None: nothing is proven, and the attempt may send."""


@dataclass(frozen=True)
class Row:
    """`doubt`: an earlier attempt may have been carried out. `state` None: nothing is written yet."""

    number: str
    what: str
    told: Told | Callable[[], Told]
    proves: type[Outcome] | Next | None
    word: str = ""
    state: State | None = None
    in_doubt: bool = False
    doubt: bool = False
    guarantee: Guarantee = KEYED
    policy: Policy = ONCE


def ok(status: str, step: Step = CONFIRM, wanted: Expectation = CHARGE, *, doubt: bool = False, **more: object) -> Told:
    thing = GAVE if isinstance(wanted, ExpectedRefund) else INTENT
    return classify(Reply(step, Sent.ANSWERED, doubt, status=200, body={**thing, "status": status, **more}), wanted)


def no(status: int, error: dict[str, str] | None = None, step: Step = CONFIRM, wanted: Expectation = CHARGE, *,
       doubt: bool = False, replayed: bool = False) -> Told:  # fmt: skip
    return classify(Reply(step, Sent.ANSWERED, doubt, status=status, error=error, replayed=replayed), wanted)


def unanswered(reason: str, sent: Sent = Sent.MAYBE, *, doubt: bool = False) -> Told:
    return classify(Reply(CONFIRM, sent, doubt, reason), CHARGE)


def missed(age: float, first: float | None = None, *, harmless: bool = True) -> Outcome:
    """A complete look-up in vain, at an age of the effect and after an earlier miss."""
    provider = StripeProvider(StripeApi("sk_test_1", "http://127.0.0.1:9"), livemode=False, deadline_seconds=20.0)
    progress = {} if first is None else {MISSED_AT: first}
    one = StripeAttempt(provider, attempt("e1", {}, sent_age_seconds=age, progress=progress), KeptLease())
    one.harmless = harmless
    return one.missed()


TWICE = (21 * HOUR + ABSENCE_SPACING_SECONDS + 20.0, 21 * HOUR)
"""Looked again an hour and the longest call after the first miss."""


def mail(status: int, name: str | None = None, body: bytes | None = None, *, doubt: bool = False) -> Outcome:
    raw_body = body if body is not None else b'{"name": "%s"}' % (name or "").encode()
    return resend.classify(Answer(status, Headers(), raw_body, reusable=True), in_doubt=doubt)


def posted(script: Script, lease: KeptLease) -> Callable[[], Outcome]:
    """A letter to a server that behaves like that."""

    def run() -> Outcome:
        letter = {"to": "ada@example.test", "subject": "Receipt", "text": "Thank you."}
        with raw(script) as server:
            provider = ResendMail(server.url, "key", sender="shop@example.test", deadline_seconds=0.3)
            outcome = provider.perform(attempt("e1", letter, kind="email", in_doubt=True), lease)
            assert lease.past_horizon is (server.requests == [])
        return outcome

    return run


def replied(phase: Phase, code: int, *, dots: int = 0) -> Outcome:
    return smtp.refused(phase, code, b"words", unanswered=dots)


def broke(phase: Phase, error: Exception, *, dots: int = 0) -> Outcome:
    return smtp.broken(phase, error, unanswered=dots)


FRONT = [
    ("15", "401", 401, INVALID, "access_refused"), ("15", "403", 403, INVALID, "access_refused"),
    ("16", "409 in use", 409, IN_USE, "in_progress"), ("17", "429", 429, None, "rate_limited"),
    ("17", "429 object locked", 429, {"code": "lock_timeout"}, "rate_limited"),
]  # fmt: skip

CHARGES = [
    Row("1", "200 succeeded, echo matches", ok("succeeded"), Succeeded, "", SUCCEEDED),
    Row("1", "found succeeded, in doubt", ok("succeeded", RETRIEVE), Succeeded, "", SUCCEEDED, doubt=True),
    *(Row("2", f"200 with another {next(iter(other))}", ok("succeeded", **other), Contradiction, "echo_mismatch", PARKED, True)
      for other in ({"amount": 1}, {"currency": "usd"}, {"livemode": True}, {"metadata": {"effect_id": "e9"}})),
    Row("3", "200 requires_capture as asked", ok("requires_capture", wanted=HELD), Awaiting, "requires_capture", AWAITING),
    Row("3", "200 requires_capture unasked", ok("requires_capture"), Contradiction, "requires_capture", PARKED, True),
    Row("4", "200 processing", ok("processing"), Awaiting, "processing", AWAITING),
    Row("5", "200 requires_action", ok("requires_action"), Awaiting, "requires_action", AWAITING),
    Row("6", "created: sends the confirm", ok("requires_confirmation", CREATE), Next.SEND),
    Row("6", "created without method", ok("requires_payment_method", CREATE), Next.SEND),
    Row("7", "200 canceled", ok("canceled"), Failed, "canceled", FAILED),
    Row("8", "402 fresh", no(402, CARD), Failed, "card_declined", FAILED),
    Row("8", "402 replayed in doubt", no(402, CARD, doubt=True, replayed=True), Failed, "card_declined", FAILED, doubt=True),
    # A person may ask the customer back and charge anew: under this effect there is nothing left to wait for.
    Row("9", "402 authentication_required", no(402, ACTION), Failed, "authentication_required", FAILED),
    Row("10", "400 idempotency_error", no(400, MISMATCH, CREATE), Contradiction, "idempotency_error", PARKED, True),
    *(Row("11", f"400 unexpected_state on {step}: looks", no(400, STATE, step, wanted), Next.LOOK)
      for step, wanted in ((CONFIRM, CHARGE), (Step.CAPTURE, TAKEN), (Step.CANCEL, ENDED))),
    Row("11", "and finds it captured by us", ok("succeeded", RETRIEVE, TAKEN, amount_received=4000,
        metadata={"effect_id": "e1", "capture_effect_id": "e3"}), Succeeded, "", SUCCEEDED),
    Row("11", "and finds it captured by another", ok("succeeded", RETRIEVE, TAKEN), Failed, "already_captured", FAILED),
    Row("11", "and finds it canceled", ok("canceled", RETRIEVE, ENDED), Succeeded, "", SUCCEEDED),
    Row("11", "and finds it captured, to cancel", ok("succeeded", RETRIEVE, ENDED), Failed, "already_captured", FAILED),
]  # fmt: skip

REFUSED = Reply(REFUND, Sent.ANSWERED, status=400, error=TAKEN_BACK)
STORED = Reply(CREATE, Sent.ANSWERED, in_doubt=True, status=500, replayed=True)

REFUNDS_AND_FRONT = [
    Row("12", "400 charge_already_refunded: looks", no(400, TAKEN_BACK, REFUND, GIVEN), Next.LOOK),
    Row("12", "400 more than remains: looks", no(400, TOO_MUCH, REFUND, GIVEN), Next.LOOK),
    Row("12", "and finds ours", ok("succeeded", LOOK_UP, GIVEN), Succeeded, "", SUCCEEDED),
    Row("12", "and finds none of ours", otherwise(REFUSED, GIVEN), Failed, "charge_already_refunded", FAILED),
    Row("13", "other 400, first send", no(400, INVALID), Failed, "parameter_invalid", FAILED),
    Row("13", "other 404, first send", no(404, INVALID, REFUND, GIVEN), Failed, "parameter_invalid", FAILED),
    Row("14", "other 400 on a re-send", no(400, INVALID, doubt=True), Unknown, "refused_in_front", UNKNOWN, True, True),
    Row("14", "other 404 on a re-send", no(404, INVALID, REFUND, GIVEN, doubt=True), Unknown, "refused_in_front", UNKNOWN, True, True),
    *(Row(n, f"{what}, first send", no(status, error), Deferred, word, PENDING) for n, what, status, error, word in FRONT),
    *(Row(n, f"{what}, in doubt", no(status, error, doubt=True), Deferred, word, UNKNOWN, True, True)
      for n, what, status, error, word in FRONT),
    Row("18", "500", no(500, {"type": "api_error"}), Unknown, "status_500", UNKNOWN, True),
    Row("18", "424", no(424, INVALID), Unknown, "status_424", UNKNOWN, True),
    Row("18", "500 replayed to a confirm", no(500, None, doubt=True, replayed=True), Unknown, "status_500", UNKNOWN, True, True),
    Row("18", "500 replayed to a create: looks", classify(STORED, CHARGE), Next.LOOK, doubt=True),
    Row("18", "and finds nothing", otherwise(STORED, CHARGE), Unknown, "status_500", UNKNOWN, True, True),
    *(Row("19", f"{status}", no(status), Unknown, f"status_{status}", UNKNOWN, True) for status in (502, 503, 504)),
    Row("20", "200 unreadable", classify(Reply(CONFIRM, Sent.ANSWERED, status=200), CHARGE), Unknown, "unreadable", UNKNOWN, True),
    Row("20", "200 cut", unanswered("torn"), Unknown, "no_answer_torn", UNKNOWN, True),
    *(Row("21", word, unanswered(word), Unknown, f"no_answer_{word}", UNKNOWN, True) for word in ("reset", "timeout", "torn")),
    *(Row("22", f"{word}, first send", unanswered(word, Sent.NOT_SENT), Deferred, f"not_sent_{word}", PENDING)
      for word in ("refused", "dns", "tls", "timeout")),
    Row("22", "refused, in doubt", unanswered("refused", Sent.NOT_SENT, doubt=True), Deferred, "not_sent_refused", UNKNOWN, True, True),
    # The claim after a lost lease reads `unknown` and in doubt: it goes on as after a lost answer.
    Row("23", "worker killed: the answer comes again", ok("succeeded", CONFIRM, doubt=True), Succeeded, "", SUCCEEDED, doubt=True),
    Row("23", "worker killed: not sent now", unanswered("refused", Sent.NOT_SENT, doubt=True), Deferred, "not_sent_refused", UNKNOWN, True, True),
    Row("24", "recorded intent unconfirmed: sends", ok("requires_confirmation", RETRIEVE), Next.SEND, doubt=True),
    Row("24", "recorded intent declined", ok("requires_payment_method", RETRIEVE, last_payment_error=CARD), Failed, "card_declined", FAILED, doubt=True),
    Row("24", "looked up, hit", ok("succeeded", LOOK_UP, GIVEN), Succeeded, "", SUCCEEDED, doubt=True),
    Row("24", "first miss", lambda: missed(21 * HOUR), Unknown, "not_found", UNKNOWN, True, True),
    Row("24", "second miss too soon", lambda: missed(21.5 * HOUR, 21 * HOUR), Unknown, "not_found", UNKNOWN, True, True),
    Row("24", "miss inside the horizon", lambda: missed(2 * HOUR), Unknown, "not_found", UNKNOWN, True, True),
    Row("24", "two misses, nothing moves by a create", lambda: missed(*TWICE), Absent, "absent", PENDING, False, True),
    Row("24", "two misses of a refund: a person", lambda: missed(*TWICE, harmless=False), Absent, "absent", PARKED, True, True),
    Row("24", "two misses of a refund: its policy", lambda: missed(*TWICE, harmless=False), Absent, "absent", PENDING, False, True,
        policy=REPEAT),
    # It is told as any success; that no final state takes it is the transition table's and the SQL guard's.
    Row("25", "late proof after failed", ok("succeeded", RETRIEVE), Succeeded, "", SUCCEEDED),
]  # fmt: skip

KEYED_MAIL = [
    Row("K1", "2xx with id", mail(200, body=b'{"id": "m1"}'), Succeeded, "", SUCCEEDED),
    *(Row("K2", f"409 concurrent, doubt {doubt}", mail(409, "concurrent_idempotent_requests", doubt=doubt), Deferred, "in_progress",
          UNKNOWN if doubt else PENDING, doubt, doubt) for doubt in (False, True)),
    Row("K3", "409 payload differs", mail(409, "invalid_idempotent_request"), Contradiction, "idempotency_error", PARKED, True),
    *(Row("K4", f"{status}", mail(status, "validation_error"), Failed, "validation_error", FAILED) for status in (400, 403, 422)),
    Row("K4", "422 in doubt", mail(422, "validation_error", doubt=True), Unknown, "refused_in_front", UNKNOWN, True, True),
    *(Row("K5", f"{name}, in doubt", mail(status, name, doubt=True), Deferred, word, UNKNOWN, True, True) for status, name, word in (
        (401, "missing_api_key", "access_refused"), (429, "daily_quota_exceeded", "quota_exceeded"))),
    Row("K5", "401, first send", mail(401, "missing_api_key"), Deferred, "access_refused", PENDING),
    *(Row("K6", f"429, doubt {doubt}", mail(429, "rate_limit_exceeded", doubt=doubt), Deferred, "rate_limited",
          UNKNOWN if doubt else PENDING, doubt, doubt) for doubt in (False, True)),
    Row("K7", "500", mail(500, "application_error"), Unknown, "status_500", UNKNOWN, True),
    Row("K7", "502 HTML", mail(502, body=b"<html>"), Unknown, "status_502", UNKNOWN, True),
    Row("K7", "200 bad JSON", mail(200, body=b"{"), Unknown, "unreadable", UNKNOWN, True),
    Row("K7", "EOF", posted(says(b"", close=True), KeptLease()), Unknown, "no_answer_torn", UNKNOWN, True, True),
    Row("K7", "timeout", posted(says(b""), KeptLease()), Unknown, "no_answer_timeout", UNKNOWN, True, True),
    # Not a policy's to decide: after the horizon a keyed provider is looked at or a person decides, nothing is sent.
    *(Row("K8", f"key expired, {policy}", posted(says(answer(b'{"id": "m1"}')), KeptLease(past_horizon=True)), Unknown,
          "key_expired", PARKED, True, True, policy=policy) for policy in Policy),
]  # fmt: skip

GONE = smtplib.SMTPServerDisconnected("gone")
BLIND_MAIL = [
    *(Row("S1", f"{type(error).__name__}, {phase}", broke(phase, error), Deferred, word, PENDING, guarantee=BLIND) for phase, error, word in (
        (Phase.CONNECT, ConnectionRefusedError(), "not_sent_connect"), (Phase.CONNECT, socket.gaierror(), "not_sent_connect"),
        (Phase.CONNECT, smtplib.SMTPConnectError(554, b""), "not_sent_connect"), (Phase.GREETING, GONE, "not_sent_greeting"),
        (Phase.GREETING, ssl.SSLError(), "not_sent_greeting"),
        (Phase.GREETING, smtplib.SMTPAuthenticationError(535, b""), "access_refused"))),
    Row("S1", "in doubt", broke(Phase.CONNECT, GONE, dots=1), Deferred, "not_sent_connect", UNKNOWN, True, True, BLIND, REPEAT),
    Row("S2", "RCPT 450", replied(Phase.ENVELOPE, 450), Deferred, "smtp_450", PENDING, guarantee=BLIND),
    Row("S2", "RCPT 550", replied(Phase.ENVELOPE, 550), Failed, "smtp_550", FAILED, guarantee=BLIND),
    Row("S2", "RCPT 550 after a lost reply", replied(Phase.ENVELOPE, 550, dots=1), Unknown, "blind_unknown", PARKED, True, True, BLIND, REPEAT),
    Row("S3", "lost after 354, before the dot", broke(Phase.DATA, GONE), Deferred, "not_sent_data", PENDING, guarantee=BLIND),
    Row("S4", "250 read", accepted("<e1@shop>", 250, unanswered=0), Succeeded, "", SUCCEEDED, guarantee=BLIND),
    Row("S5", "451 to the dot", replied(Phase.REPLIED, 451), Deferred, "smtp_451", PENDING, guarantee=BLIND),
    Row("S5", "554 to the dot", replied(Phase.REPLIED, 554), Failed, "smtp_554", FAILED, guarantee=BLIND),
    Row("S6", "no reply to the dot, at most once", broke(Phase.DOT, GONE), Unknown, "no_answer", PARKED, True, guarantee=BLIND),
    Row("S6", "no reply to the dot, at least once", broke(Phase.DOT, TimeoutError()), Unknown, "no_answer", UNKNOWN, True, False, BLIND, REPEAT),
    Row("S6", "a copy too many", before_sending(REPEAT, SENDS_MAX), Unknown, "blind_unknown", PARKED, True, True, BLIND, REPEAT),
    Row("S7", "killed, no marker: sends (S3)", before_sending(ONCE, 0), None, doubt=True, guarantee=BLIND),
    Row("S7", "killed, marker, at most once (S6)", before_sending(ONCE, 1), Unknown, "blind_unknown", PARKED, True, True, BLIND),
    Row("S7", "killed, marker, at least once: sends (S6)", before_sending(REPEAT, 1), None, doubt=True, guarantee=BLIND, policy=REPEAT),
]  # fmt: skip

TABLE = [*CHARGES, *REFUNDS_AND_FRONT, *KEYED_MAIL, *BLIND_MAIL]


@pytest.mark.parametrize("row", TABLE, ids=[f"{row.number}: {row.what}" for row in TABLE])
def test_each_row_proves_and_writes_what_the_table_says(row: Row) -> None:
    told = row.told() if callable(row.told) else row.told
    if told is None or isinstance(told, Next):
        assert told is row.proves
        assert row.state is None
        return
    assert not isinstance(row.proves, Next)
    assert row.proves is not None
    assert isinstance(told, row.proves)
    assert (getattr(told, "reason", None) or getattr(told, "code", "")) == row.word
    found = replace(attempt("e1", {}), prior=UNKNOWN if row.doubt else PENDING, in_doubt=row.doubt, policy=row.policy)
    written = settlement(found, told, provider="p", guarantee=row.guarantee, limits=LIMITS, random=lambda: 0.5)
    assert (written.state, written.in_doubt) == (row.state, row.in_doubt)
    assert written.state in TRANSITIONS[State.EXECUTING]


def test_row_25_no_final_state_takes_a_late_proof() -> None:
    assert TRANSITIONS[FAILED] == TRANSITIONS[SUCCEEDED] == frozenset()


def test_row_s6_a_copy_that_arrives_after_a_lost_reply_says_so() -> None:
    assert accepted("<e1@shop>", 250, unanswered=1).detail["possible_duplicate"] is True


def test_only_evidence_moves_an_effect_out_of_doubt() -> None:
    for row in TABLE:
        if row.doubt and row.state in (PENDING, SUCCEEDED, FAILED):
            assert row.proves in (Succeeded, Failed, Absent), row


def test_the_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {row.number for row in TABLE}
    assert numbers == {*STRIPE, *MAIL}
    cases = sum(bool(re.match(r"\d", row.number)) for row in TABLE)
    with capsys.disabled():
        sys.stdout.write(f"\noutcome table: {len(STRIPE)}+{len(MAIL)} rows in {cases}+{len(TABLE) - cases} cases\n")
