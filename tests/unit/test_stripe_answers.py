"""Each answer Stripe can give, and what it proves; the table is the promise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Succeeded, Unknown
from service.providers.stripe.answers import (
    READS,
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
)

OURS = Expected("e1", 4200, "eur", livemode=False)
MANUAL = Expected("e1", 4200, "eur", livemode=False, manual=True)
GIVEN = ExpectedRefund("e2", 1000, "eur", "pi_1")
TAKEN = ExpectedCapture("e3", "e1", 4000, "eur", livemode=False, intent="pi_1")
ENDED = ExpectedCancel("e4", "e1", livemode=False, intent="pi_1")
INTENT: dict[str, Any] = {
    "id": "pi_1",
    "amount": 4200,
    "currency": "eur",
    "livemode": False,
    "metadata": {"effect_id": "e1"},
    "latest_charge": "ch_1",
}
DECLINE = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card", "message": "Declined."}
CREATE, CONFIRM, RETRIEVE = Step.CREATE, Step.CONFIRM, Step.RETRIEVE
REFUND, CAPTURE, CANCEL, LOOK_UP = Step.REFUND, Step.CAPTURE, Step.CANCEL, Step.LOOK_UP
OUR_CAPTURE = {"amount_received": 4000, "metadata": {"effect_id": "e1", "capture_effect_id": "e3"}}


def intent(status: str, **more: Any) -> dict[str, Any]:
    return {**INTENT, "status": status, **more}


def ok(step: Step, body: dict[str, Any] | None, **more: Any) -> Reply:
    return Reply(step, Sent.ANSWERED, status=200, body=body, **more)


def refused(step: Step, status: int, error: dict[str, Any] | None = None, **more: Any) -> Reply:
    return Reply(step, Sent.ANSWERED, status=status, error=error, **more)


INVALID = {"type": "invalid_request_error", "code": "parameter_invalid"}
MISMATCH = {"type": "idempotency_error", "message": "Keys can only be used with the same parameters"}
IN_USE = {"type": "invalid_request_error", "code": "idempotency_key_in_use"}
STATE = {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}

TABLE: list[tuple[str, Reply, type | Next, str]] = [
    # own answers: a PaymentIntent
    ("succeeded and the echo matches", ok(CONFIRM, intent("succeeded")), Succeeded, ""),
    ("succeeded, found by looking", ok(RETRIEVE, intent("succeeded")), Succeeded, ""),
    ("succeeded, another amount", ok(CONFIRM, intent("succeeded", amount=1)), Contradiction, "echo_mismatch"),
    ("succeeded, another currency", ok(CONFIRM, intent("succeeded", currency="usd")), Contradiction, "echo_mismatch"),
    ("succeeded, another effect", ok(CONFIRM, intent("succeeded", metadata={})), Contradiction, "echo_mismatch"),
    ("succeeded, another mode", ok(CONFIRM, intent("succeeded", livemode=True)), Contradiction, "echo_mismatch"),
    ("created for another effect", ok(CREATE, intent("requires_confirmation", amount=1)), Contradiction, "echo_"),
    ("only authorised", ok(CONFIRM, intent("requires_capture")), Contradiction, "requires_capture"),
    ("processing", ok(CONFIRM, intent("processing")), Awaiting, "processing"),
    ("still processing, found by looking", ok(RETRIEVE, intent("processing")), Awaiting, "processing"),
    ("the customer must act", ok(CONFIRM, intent("requires_action")), Awaiting, "requires_action"),
    ("created", ok(CREATE, intent("requires_confirmation")), Next.SEND, ""),
    ("created without method", ok(CREATE, intent("requires_payment_method")), Next.SEND, ""),
    ("found unconfirmed", ok(RETRIEVE, intent("requires_confirmation")), Next.SEND, ""),
    ("confirmed, yet unconfirmed", ok(CONFIRM, intent("requires_confirmation")), Unknown, "unexpected_status"),
    ("canceled", ok(RETRIEVE, intent("canceled")), Failed, "canceled"),
    ("declined before, found by looking", ok(RETRIEVE, intent("requires_payment_method", last_payment_error=DECLINE)),
     Failed, "card_declined"),
    ("a status of the future", ok(CONFIRM, intent("levitating")), Unknown, "unexpected_status"),
    # own answers: refusals
    ("card declined", refused(CONFIRM, 402, DECLINE), Failed, "card_declined"),
    ("card declined, replayed in doubt", refused(CONFIRM, 402, DECLINE, in_doubt=True, replayed=True), Failed, "card_"),
    ("authentication required off session", refused(CONFIRM, 402, {**DECLINE, "code": "authentication_required"}),
     Failed, "authentication_required"),
    ("same key, other parameters", refused(CREATE, 400, MISMATCH), Contradiction, "idempotency_error"),
    ("confirmed before", refused(CONFIRM, 400, STATE, in_doubt=True), Next.LOOK, ""),
    ("bad request on a first send", refused(CREATE, 400, INVALID), Failed, "parameter_invalid"),
    ("not found on a first send", refused(CONFIRM, 404, INVALID), Failed, "parameter_invalid"),
    ("bad request, replayed", refused(CONFIRM, 400, INVALID, in_doubt=True, replayed=True), Failed, "parameter_"),
    # front answers: nothing about an earlier send
    ("bad request on a re-send in doubt", refused(CONFIRM, 400, INVALID, in_doubt=True), Unknown, "refused_in_front"),
    ("bad key", refused(CREATE, 401, INVALID), Deferred, "access_refused"),
    ("forbidden", refused(CREATE, 403, INVALID, in_doubt=True), Deferred, "access_refused"),
    ("in progress", refused(CONFIRM, 409, IN_USE), Deferred, "in_progress"),
    ("in progress, of a newer type", refused(CONFIRM, 409, {**IN_USE, "type": "idempotency_error"}), Deferred, "in_"),
    ("rate limited", refused(CONFIRM, 429, None), Deferred, "rate_limited"),
    ("rate limited of old", refused(CONFIRM, 400, {"code": "rate_limit"}), Deferred, "rate_limited"),
    ("object locked", refused(CONFIRM, 429, {"code": "lock_timeout"}), Deferred, "rate_limited"),
    # indeterminate
    ("stored 500", refused(CONFIRM, 500, {"type": "api_error"}), Unknown, "status_500"),
    ("stored 500, replayed", refused(CONFIRM, 500, {"type": "api_error"}, replayed=True), Unknown, "status_500"),
    ("a dependency of theirs failed", refused(CONFIRM, 424, INVALID), Unknown, "status_424"),
    ("a proxy answers", refused(CONFIRM, 502), Unknown, "status_502"),
    ("a redirect", refused(CONFIRM, 302), Unknown, "status_302"),
    ("402 without a card error", refused(CONFIRM, 402), Unknown, "status_402"),
    ("200 that cannot be read", ok(CONFIRM, None), Unknown, "unreadable"),
    ("no answer", Reply(CONFIRM, Sent.MAYBE, reason="reset"), Unknown, "no_answer_reset"),
    ("never sent", Reply(CONFIRM, Sent.NOT_SENT, reason="refused"), Deferred, "not_sent_refused"),
    # a look-up has no effect of its own, so it leaves the effect as it was
    ("look-up without answer", Reply(RETRIEVE, Sent.MAYBE, reason="timeout"), Deferred, "look_up_no_answer"),
    ("look-up fails", refused(RETRIEVE, 500), Deferred, "look_up_status_500"),
    ("look-up misses what we hold", refused(RETRIEVE, 404, INVALID), Contradiction, "payment_intent_missing"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "kind", "word"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_answer_proves_what_the_table_says(reply: Reply, kind: type | Next, word: str) -> None:
    outcome = classify(reply, OURS)
    if isinstance(kind, Next):
        assert outcome is kind
        return
    assert isinstance(outcome, kind)
    assert (getattr(outcome, "reason", None) or getattr(outcome, "code", "")).startswith(word)


def test_a_success_tells_the_caller_what_was_charged() -> None:
    outcome = classify(ok(RETRIEVE, intent("succeeded"), replayed=True, request_id="req_1"), OURS)
    assert isinstance(outcome, Succeeded)
    assert outcome.ref == "pi_1"
    assert outcome.detail == {
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "amount": 4200,
        "currency": "eur",
        "status": "succeeded",
    }
    assert outcome.evidence == {
        "step": "retrieve",
        "status": 200,
        "request_id": "req_1",
        "replayed": True,
        "adopted": True,
    }


def test_a_decline_carries_stripes_codes_and_no_card() -> None:
    error = {**DECLINE, "advice_code": "do_not_try_again", "payment_intent": {"id": "pi_1"}, "payment_method": {"x": 1}}
    outcome = classify(refused(CONFIRM, 402, error, request_id="req_1"), OURS)
    assert isinstance(outcome, Failed)
    assert outcome.message == "Declined."
    assert outcome.detail == {
        "code": "card_declined",
        "decline_code": "lost_card",
        "advice_code": "do_not_try_again",
        "payment_intent": "pi_1",
    }
    assert "payment_method" not in outcome.evidence


def test_the_intent_must_be_the_one_we_recorded() -> None:
    other = Expected("e1", 4200, "eur", livemode=False, intent="pi_2")
    assert classify(ok(RETRIEVE, intent("succeeded")), other) == Contradiction(
        "echo_mismatch", {"step": "retrieve", "status": 200, "replayed": False}
    )


@pytest.mark.parametrize(
    ("status", "asked", "waits"), [(409, None, 2.0), (409, 7.0, 7.0), (429, 3.0, 3.0), (401, None, 60.0)]
)
def test_a_deferral_waits_as_long_as_stripe_needs(status: int, asked: float | None, waits: float) -> None:
    outcome = classify(refused(CONFIRM, status, None, retry_after=asked), OURS)
    assert isinstance(outcome, Deferred)
    assert outcome.after_seconds == waits


def gave(status: str, **more: Any) -> dict[str, Any]:
    ours = {"metadata": {"effect_id": "e2"}, "payment_intent": "pi_1", "charge": "ch_1"}
    return {"id": "re_1", "amount": 1000, "currency": "eur", "status": status, **ours, **more}


LINKED: list[tuple[str, Reply, Expectation, type | Next, str]] = [
    ("refund succeeded", ok(REFUND, gave("succeeded")), GIVEN, Succeeded, ""),
    ("refund pending", ok(REFUND, gave("pending")), GIVEN, Awaiting, "pending"),
    ("refund needs an account", ok(RETRIEVE, gave("requires_action")), GIVEN, Awaiting, "requires_action"),
    ("refund failed", ok(RETRIEVE, gave("failed", failure_reason="lost_or_stolen_card")), GIVEN, Failed, "refund_failed"),
    ("refund canceled", ok(RETRIEVE, gave("canceled")), GIVEN, Failed, "refund_canceled"),
    ("refund of the future", ok(REFUND, gave("levitating")), GIVEN, Unknown, "unexpected_status"),
    ("refund of the future, read", ok(RETRIEVE, gave("levitating")), GIVEN, Deferred, "look_up_unexpected_status"),
    ("refund of another amount", ok(REFUND, gave("succeeded", amount=1)), GIVEN, Contradiction, "echo_mismatch"),
    ("refund in another currency", ok(REFUND, gave("succeeded", currency="usd")), GIVEN, Contradiction, "echo_"),
    ("refund of another charge", ok(REFUND, gave("succeeded", payment_intent="pi_2")), GIVEN, Contradiction, "echo_"),
    ("refund of another effect", ok(REFUND, gave("succeeded", metadata=None)), GIVEN, Contradiction, "echo_mismatch"),
    ("refund missed by its id", refused(RETRIEVE, 404, INVALID), GIVEN, Contradiction, "refund_missing"),
    ("refund under a stored 500", refused(REFUND, 500, None, replayed=True), GIVEN, Next.LOOK, ""),
    ("refund under a fresh 500", refused(REFUND, 500, None), GIVEN, Unknown, "status_500"),
    ("held as asked", ok(CONFIRM, intent("requires_capture")), MANUAL, Awaiting, "requires_capture"),
    ("captured", ok(CAPTURE, intent("succeeded", **OUR_CAPTURE)), TAKEN, Succeeded, ""),
    ("captured without our mark", ok(CAPTURE, intent("succeeded", amount_received=4000)), TAKEN, Contradiction, "echo_"),
    ("captured another amount", ok(CAPTURE, intent("succeeded", **{**OUR_CAPTURE, "amount_received": 1})), TAKEN,
     Contradiction, "echo_mismatch"),
    ("captured, no charge named", ok(CAPTURE, intent("succeeded", **OUR_CAPTURE, latest_charge=None)), TAKEN,
     Contradiction, "echo_mismatch"),
    ("capture of another's charge", ok(CAPTURE, intent("succeeded", metadata={})), TAKEN, Contradiction, "echo_"),
    ("seen captured by another", ok(RETRIEVE, intent("succeeded")), TAKEN, Failed, "already_captured"),
    ("seen still held", ok(RETRIEVE, intent("requires_capture")), TAKEN, Next.SEND, ""),
    ("captured, yet held", ok(CAPTURE, intent("requires_capture")), TAKEN, Unknown, "unexpected_status"),
    ("capture takes its time", ok(CAPTURE, intent("processing")), TAKEN, Awaiting, "processing"),
    ("seen canceled, to capture", ok(RETRIEVE, intent("canceled")), TAKEN, Failed, "canceled"),
    ("seen unconfirmed, to capture", ok(RETRIEVE, intent("requires_confirmation")), TAKEN, Deferred, "look_up_"),
    ("capture refused by the state", refused(CAPTURE, 400, STATE), TAKEN, Next.LOOK, ""),
    ("capture under a stored 500", refused(CAPTURE, 500, None, replayed=True), TAKEN, Unknown, "status_500"),
    ("canceled", ok(CANCEL, intent("canceled")), ENDED, Succeeded, ""),
    ("canceled, yet held", ok(CANCEL, intent("requires_capture")), ENDED, Unknown, "unexpected_status"),
    ("seen held, to cancel", ok(RETRIEVE, intent("requires_capture")), ENDED, Next.SEND, ""),
    ("seen captured, to cancel", ok(RETRIEVE, intent("succeeded")), ENDED, Failed, "already_captured"),
    ("cancel of another mode", ok(CANCEL, intent("canceled", livemode=True)), ENDED, Contradiction, "echo_mismatch"),
    ("a list", ok(LOOK_UP, {"object": "list", "data": []}), GIVEN, Next.READ, ""),
    ("a search", ok(LOOK_UP, {"object": "search_result", "data": []}), OURS, Next.READ, ""),
    ("a list that is none", ok(LOOK_UP, None), OURS, Deferred, "look_up_unreadable"),
    ("a list that is refused", refused(LOOK_UP, 400, INVALID), OURS, Deferred, "look_up_refused"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "wanted", "kind", "word"), [row[1:] for row in LINKED], ids=[row[0] for row in LINKED]
)
def test_each_answer_to_what_acts_upon_a_charge_proves_what_the_table_says(
    reply: Reply, wanted: Expectation, kind: type | Next, word: str
) -> None:
    outcome = classify(reply, wanted)
    if isinstance(kind, Next):
        assert outcome is kind
        return
    assert isinstance(outcome, kind)
    assert (getattr(outcome, "reason", None) or getattr(outcome, "code", "")).startswith(word)


def test_each_effect_upon_a_charge_has_a_reference_of_its_own() -> None:
    replies = [
        (ok(CONFIRM, intent("succeeded")), OURS),
        (ok(REFUND, gave("succeeded")), GIVEN),
        (ok(CAPTURE, intent("succeeded", **OUR_CAPTURE)), TAKEN),
        (ok(CANCEL, intent("canceled")), ENDED),
        (ok(RETRIEVE, intent("canceled")), ENDED),
    ]
    outcomes = [classify(reply, wanted) for reply, wanted in replies]
    refs = [outcome.ref for outcome in outcomes if isinstance(outcome, Succeeded)]
    assert refs == ["pi_1", "re_1", "ch_1", "pi_1:canceled", "pi_1:canceled:e4"]


def test_a_held_charge_says_what_was_taken_and_an_automatic_one_what_it_always_said() -> None:
    taken = classify(ok(RETRIEVE, intent("succeeded", amount_received=4000)), MANUAL)
    always = classify(ok(RETRIEVE, intent("succeeded", amount_received=4200)), OURS)
    assert isinstance(taken, Succeeded)
    assert isinstance(always, Succeeded)
    assert taken.detail["amount_received"] == 4000
    assert "amount_received" not in always.detail


def test_a_stored_500_is_not_asked_for_again_before_half_an_hour() -> None:
    outcome = classify(refused(CONFIRM, 500, None, replayed=True, in_doubt=True), OURS)
    assert isinstance(outcome, Unknown)
    assert outcome.after_seconds == 1800.0


@given(
    step=st.sampled_from([step for step in Step if step not in READS]),
    wanted=st.sampled_from([OURS, GIVEN, TAKEN, ENDED]),
    status=st.integers(100, 599),
    code=st.sampled_from([None, "card_declined", "lock_timeout", "idempotency_key_in_use", "resource_missing"]),
    error=st.booleans(),
)
def test_i5_in_doubt_only_an_own_answer_may_settle(
    step: Step, wanted: Expectation, status: int, code: str | None, error: bool
) -> None:
    body = {"type": "invalid_request_error", "code": code} if error else None
    outcome = classify(refused(step, status, body, in_doubt=True), wanted)
    assert not isinstance(outcome, Succeeded)
    if isinstance(outcome, Failed):
        assert status == 402


@given(
    step=st.sampled_from(sorted(READS)),
    wanted=st.sampled_from([OURS, GIVEN, TAKEN, ENDED]),
    status=st.integers(100, 599),
    error=st.none() | st.just(INVALID),
    replayed=st.booleans(),
)
def test_a_read_settles_nothing_unless_it_shows_the_object(
    step: Step, wanted: Expectation, status: int, error: dict[str, str] | None, replayed: bool
) -> None:
    outcome = classify(refused(step, status, error, replayed=replayed), wanted)
    assert isinstance(outcome, Deferred | Contradiction)
