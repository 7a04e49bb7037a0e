"""An authorised charge through the real SDK against the fake: captured once or released, never both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.core.effect import Attempt, Concerned
from service.core.outcome import Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.providers.stripe.attempt import StripeProvider
from service.providers.stripe.authorisations import StripeCancels, StripeCaptures
from service.providers.stripe.charges import create_params
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again
from tests.contract.paid import HOUR, a_charge, api, charges, held, moved, paid, sent, upon, word

LOST = ["close_before", "close_after", "truncate", "status_502_html", "html_200"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture
def hold(fake: FakeServer) -> tuple[Attempt, Concerned]:
    return held(fake)


@pytest.fixture
def capture(hold: tuple[Attempt, Concerned]) -> Attempt:
    return upon(hold[1], "capture", {"amount": 4000, "currency": "eur"})


@pytest.fixture
def cancel(hold: tuple[Attempt, Concerned]) -> Attempt:
    return upon(hold[1], "cancel", {"reason": "requested_by_customer"})


def provider(fake: FakeServer, kind: str) -> StripeCaptures | StripeCancels:
    made: type[StripeProvider] = StripeCaptures if kind == "capture" else StripeCancels
    built = made(api(fake), livemode=False, deadline_seconds=10.0)
    assert isinstance(built, StripeCaptures | StripeCancels)
    return built


def perform(fake: FakeServer, attempt: Attempt, lease: KeptLease | None = None) -> Outcome:
    return provider(fake, attempt.kind).perform(attempt, lease or KeptLease())


def look(fake: FakeServer, attempt: Attempt) -> Outcome:
    return provider(fake, attempt.kind).look_up(attempt, seconds=5)


def taken(fake: FakeServer, attempt: Attempt) -> list[int]:
    return [row["amount"] for row in moved(fake, attempt.id, "capture")]


def test_the_create_says_manual_only_when_asked_and_an_old_request_keeps_its_bytes() -> None:
    plain, manual = a_charge(), a_charge(capture_method="manual")
    assert "capture_method" not in create_params(plain)
    asked = create_params(manual)
    assert asked.pop("capture_method") == "manual"
    assert list(asked) == list(create_params(plain))


def test_a_held_charge_waits_and_is_told_when_its_money_is_taken(
    fake: FakeServer, hold: tuple[Attempt, Concerned], capture: Attempt
) -> None:
    charge, _ = hold
    waiting = charges(fake).perform(charge, KeptLease())
    assert isinstance(waiting, Awaiting)
    assert (waiting.detail["status"], waiting.poll_after_seconds) == ("requires_capture", HOUR)
    assert isinstance(perform(fake, capture), Succeeded)
    settled = charges(fake).perform(charge, KeptLease())
    assert isinstance(settled, Succeeded)
    assert (settled.detail["amount"], settled.detail["amount_received"]) == (4200, 4000)


def test_a_hold_that_nobody_asked_for_is_a_contradiction(fake: FakeServer, hold: tuple[Attempt, Concerned]) -> None:
    charge, _ = hold
    automatic = replace(charge, request={**charge.request, "capture_method": None})
    outcome = charges(fake).perform(automatic, KeptLease())
    assert isinstance(outcome, Contradiction)
    assert outcome.reason == "requires_capture"


def test_a_capture_takes_the_money_once_and_names_the_charge(fake: FakeServer, capture: Attempt) -> None:
    outcome = perform(fake, capture)
    assert isinstance(outcome, Succeeded)
    (row,) = moved(fake, capture.id, "capture")
    assert (outcome.ref, outcome.detail["amount_received"], row["amount"]) == (row["charge"], 4000, 4000)
    assert outcome.ref != capture.concerned.ref if capture.concerned else False


@pytest.mark.parametrize("action", LOST)
@pytest.mark.parametrize("hours", [0, 25])
def test_w7_w8_a_capture_whose_answer_was_lost_is_looked_at_and_done_once(
    fake: FakeServer, capture: Attempt, action: str, hours: int
) -> None:
    fake.fault(action, route="capture", key=capture.id)
    assert isinstance(perform(fake, capture), Unknown)
    fake.advance(hours=hours)
    outcome = perform(fake, again(capture, KeptLease()), KeptLease(past_horizon=hours > 20))
    assert isinstance(outcome, Succeeded)
    assert outcome.evidence.get("adopted", False) is (action not in ("close_before", "status_502_html"))
    assert taken(fake, capture) == [4000]


@pytest.mark.parametrize("action", LOST)
def test_w7_w8_a_cancel_whose_answer_was_lost_is_looked_at_and_done(
    fake: FakeServer, cancel: Attempt, action: str
) -> None:
    fake.fault(action, route="cancel", key=cancel.id)
    assert isinstance(perform(fake, cancel), Unknown)
    outcome = perform(fake, again(cancel, KeptLease()))
    assert isinstance(outcome, Succeeded)
    assert cancel.concerned
    assert outcome.ref == f"{cancel.concerned.ref}:canceled"


@pytest.mark.parametrize("action", ["status_401", "status_429", "conflict_409"])
@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_a_front_answer_defers(fake: FakeServer, capture: Attempt, cancel: Attempt, action: str, kind: str) -> None:
    attempt = capture if kind == "capture" else cancel
    fake.fault(action, route=kind, key=attempt.id)
    assert isinstance(perform(fake, attempt), Deferred)
    assert isinstance(perform(fake, again(attempt, KeptLease())), Succeeded)


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_a_look_that_stripe_does_not_answer_sends_nothing(
    fake: FakeServer, capture: Attempt, cancel: Attempt, kind: str
) -> None:
    attempt = capture if kind == "capture" else cancel
    fake.fault("status_429", route="retrieve")
    assert isinstance(perform(fake, again(attempt, KeptLease())), Deferred)
    assert sent(fake, attempt.id) == []


def test_the_second_capture_of_a_charge_learns_that_another_took_the_money(
    fake: FakeServer, hold: tuple[Attempt, Concerned], capture: Attempt
) -> None:
    assert isinstance(perform(fake, capture), Succeeded)
    second = upon(hold[1], "capture", {"amount": 4000, "currency": "eur"})
    for attempt in (second, again(second, KeptLease())):
        outcome = perform(fake, attempt)
        assert isinstance(outcome, Failed)
        assert outcome.code == "already_captured"
    assert taken(fake, second) == []


def test_a_capture_after_a_cancel_and_a_cancel_after_a_capture_fail(
    fake: FakeServer, hold: tuple[Attempt, Concerned], capture: Attempt, cancel: Attempt
) -> None:
    assert isinstance(perform(fake, cancel), Succeeded)
    assert word(perform(fake, capture)) == "canceled"
    assert word(charges(fake).perform(hold[0], KeptLease())) == "canceled"
    _, other = held(fake)
    assert isinstance(perform(fake, upon(other, "capture", {"amount": 4200, "currency": "eur"})), Succeeded)
    late = upon(other, "cancel", {})
    assert word(perform(fake, late)) == "already_captured"
    assert word(perform(fake, replace(late, concerned=replace(other, state=State.SUCCEEDED)))) == "already_captured"


def test_two_cancels_of_one_charge_agree_and_bear_different_references(
    fake: FakeServer, hold: tuple[Attempt, Concerned], cancel: Attempt
) -> None:
    first = perform(fake, cancel)
    second = perform(fake, upon(hold[1], "cancel", {}))
    assert isinstance(first, Succeeded)
    assert isinstance(second, Succeeded)
    assert len({first.ref, second.ref, hold[1].ref}) == 3


def test_a_hold_that_ran_out_fails_its_capture_and_its_charge(
    fake: FakeServer, hold: tuple[Attempt, Concerned], capture: Attempt
) -> None:
    fake.advance(hours=8 * 24)
    assert word(perform(fake, capture)) == "canceled"
    assert word(charges(fake).perform(hold[0], KeptLease())) == "canceled"


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_nothing_is_sent_for_a_failed_charge_unless_it_may_have_been_sent_before(
    fake: FakeServer, capture: Attempt, cancel: Attempt, kind: str
) -> None:
    attempt = capture if kind == "capture" else cancel
    assert attempt.concerned
    failed = replace(attempt, concerned=replace(attempt.concerned, state=State.FAILED))
    assert word(perform(fake, failed)) == "charge_failed"
    assert sent(fake, attempt.id) == []
    # Our own cancel, its answer lost, has failed the charge: the look says so.
    assert isinstance(perform(fake, cancel), Succeeded)
    outcome = perform(fake, again(failed, KeptLease()))
    assert word(outcome) == ("canceled" if kind == "capture" else "")


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_without_a_charge_to_name_a_person_looks(
    fake: FakeServer, capture: Attempt, cancel: Attempt, kind: str
) -> None:
    attempt = capture if kind == "capture" else cancel
    assert isinstance(perform(fake, replace(attempt, concerned=None)), Contradiction)
    assert isinstance(perform(fake, replace(attempt, concerned=Concerned("c", State.AWAITING, None))), Contradiction)
    assert word(look(fake, replace(attempt, concerned=None))) == "not_found"


def test_another_charges_intent_is_a_contradiction_and_nothing_is_taken(fake: FakeServer, capture: Attempt) -> None:
    other = paid(fake)
    confused = replace(again(capture, KeptLease()), concerned=replace(other, id="another"))
    assert word(perform(fake, confused)) == "echo_mismatch"
    assert sent(fake, capture.id) == []


@pytest.mark.parametrize("kind", ["capture", "cancel"])
def test_the_hold_of_an_adopted_charge_bears_the_mark_of_an_earlier_life(
    fake: FakeServer, capture: Attempt, cancel: Attempt, kind: str
) -> None:
    attempt = capture if kind == "capture" else cancel
    assert attempt.concerned
    adopted = replace(attempt.concerned, id="another", mark=attempt.concerned.id)
    assert isinstance(perform(fake, replace(attempt, concerned=adopted)), Succeeded)


def test_looking_sends_nothing_and_tells_what_was_done(fake: FakeServer, capture: Attempt, cancel: Attempt) -> None:
    assert (word(look(fake, capture)), word(look(fake, cancel))) == ("not_captured", "not_canceled")
    assert sent(fake, capture.id) + sent(fake, cancel.id) == []
    done = perform(fake, capture)
    seen = look(fake, capture)
    assert isinstance(done, Succeeded)
    assert isinstance(seen, Succeeded)
    assert (seen.ref, seen.evidence["adopted"]) == (done.ref, True)
    assert word(look(fake, cancel)) == "already_captured"
