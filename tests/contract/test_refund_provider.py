"""A refund through the real SDK against the fake: the money goes back once at the ledger, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from service.core.effect import Attempt, Concerned, LeaseLost
from service.core.errors import DependencyUnavailable
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.core.state import State
from service.providers.stripe.api import StripeApi
from service.providers.stripe.attempt import ABSENCE_SPACING_SECONDS, MISSED_AT
from service.providers.stripe.refunds import StripeRefunds
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again
from tests.contract.paid import HOUR, api, moved, paid, sent, upon, word
from tests.contract.raw_server import answer, raw, says

SPACING = ABSENCE_SPACING_SECONDS + 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()
    server.admin("settings", {"refund_status": None})


@pytest.fixture
def charge(fake: FakeServer) -> Concerned:
    return paid(fake)


@pytest.fixture
def refund(charge: Concerned) -> Attempt:
    asked = {"amount": 1000, "currency": "eur", "reason": "requested_by_customer", "metadata": {"order": "17"}}
    return upon(charge, "refund", asked)


def provider(fake: FakeServer) -> StripeRefunds:
    return StripeRefunds(api(fake), livemode=False, deadline_seconds=10.0)


def perform(fake: FakeServer, refund: Attempt, lease: KeptLease) -> Outcome:
    return provider(fake).perform(refund, lease)


def given(fake: FakeServer, refund: Attempt) -> list[int]:
    return [row["amount"] for row in moved(fake, refund.id, "refund")]


def late(refund: Attempt, lease: KeptLease, age: float) -> Attempt:
    """The next attempt, so long after the first send."""
    return again(refund, lease, sent_age_seconds=age)


def test_money_goes_back_and_the_refund_is_recorded_and_told(fake: FakeServer, refund: Attempt) -> None:
    lease = KeptLease()
    outcome = perform(fake, refund, lease)
    assert isinstance(outcome, Succeeded)
    (row,) = moved(fake, refund.id, "refund")
    assert outcome.ref == row["refund"]
    assert outcome.detail == {
        "refund": row["refund"],
        "payment_intent": row["payment_intent"],
        "charge": row["charge"],
        "amount": 1000,
        "currency": "eur",
        "status": "succeeded",
    }
    assert lease.records == [{"refund": row["refund"]}]
    assert {"order": "17", "effect_id": refund.id}.items() <= row["metadata"].items()


def test_i6_each_try_sends_the_same_bytes_under_one_key() -> None:
    refund = upon(Concerned("c1", State.SUCCEEDED, "pi_1"), "refund", {"amount": 7, "currency": "eur"})
    with raw(says(answer(b"{}", "500 Internal Server Error"))) as server:
        stripe = StripeRefunds(StripeApi("sk_test_1", server.url), livemode=False, deadline_seconds=1.0)
        for _ in range(2):
            assert isinstance(stripe.perform(refund, KeptLease()), Unknown)
        assert server.requests[0] == server.requests[1]
    assert f"Idempotency-Key: {refund.id}:refund\r\n".encode() in server.requests[0]


@pytest.mark.parametrize("age", [0.0, 1e9])
def test_i9_a_refund_of_a_failed_charge_sends_nothing(fake: FakeServer, refund: Attempt, age: float) -> None:
    failed = replace(refund, concerned=Concerned("c1", State.FAILED, "pi_1"), sent_age_seconds=age, in_doubt=age > 0)
    outcome = perform(fake, failed, KeptLease())
    assert isinstance(outcome, Failed)
    assert outcome.code == "charge_failed"
    assert sent(fake, refund.id) == []


@pytest.mark.parametrize("of", [None, Concerned("c1", State.SUCCEEDED, None)])
def test_a_refund_without_a_charge_to_name_is_for_a_person(
    fake: FakeServer, refund: Attempt, of: Concerned | None
) -> None:
    assert isinstance(perform(fake, replace(refund, concerned=of), KeptLease()), Contradiction)
    assert sent(fake, refund.id) == []


@pytest.mark.parametrize("action", ["close_before", "close_after", "truncate", "status_502_html", "empty_200"])
def test_w7_w8_a_lost_answer_is_settled_by_the_same_key(fake: FakeServer, refund: Attempt, action: str) -> None:
    fake.fault(action, route="refund", key=refund.id)
    assert isinstance(perform(fake, refund, KeptLease()), Unknown)
    assert isinstance(perform(fake, again(refund, KeptLease()), KeptLease()), Succeeded)
    assert given(fake, refund) == [1000]


@pytest.mark.parametrize(
    ("action", "reason"),
    [("status_401", "access_refused"), ("status_429", "rate_limited"), ("conflict_409", "in_progress")],
)
@pytest.mark.parametrize("doubt", [False, True])
def test_a_front_answer_defers(fake: FakeServer, refund: Attempt, action: str, reason: str, doubt: bool) -> None:
    fake.fault(action, route="refund", key=refund.id)
    outcome = perform(fake, again(refund, KeptLease()) if doubt else refund, KeptLease())
    assert isinstance(outcome, Deferred)
    assert outcome.reason == reason
    assert given(fake, refund) == []


def test_w8_after_the_horizon_the_refund_is_found_in_the_list_and_never_sent_again(
    fake: FakeServer, refund: Attempt
) -> None:
    fake.fault("close_after", route="refund", key=refund.id)
    assert isinstance(perform(fake, refund, KeptLease()), Unknown)
    fake.advance(hours=25)
    lease = KeptLease(past_horizon=True)
    outcome = perform(fake, late(refund, KeptLease(), 25 * HOUR), lease)
    assert isinstance(outcome, Succeeded)
    assert outcome.evidence["adopted"] is True
    assert lease.records == [{"refund": outcome.ref}]
    assert (len(sent(fake, refund.id)), given(fake, refund)) == (1, [1000])


def test_absence_takes_two_misses_an_hour_and_a_call_apart_and_is_not_harmless(
    fake: FakeServer, refund: Attempt
) -> None:
    first = KeptLease(past_horizon=True)
    outcome = perform(fake, late(refund, KeptLease(), 21 * HOUR), first)
    assert isinstance(outcome, Unknown)
    assert (outcome.reason, outcome.after_seconds) == ("not_found", SPACING)
    missed = first.records[0][MISSED_AT]
    assert missed >= 21 * HOUR
    soon = perform(fake, late(refund, first, missed + SPACING - 60), KeptLease(past_horizon=True))
    assert isinstance(soon, Unknown)
    assert soon.after_seconds == pytest.approx(60)
    second = perform(fake, late(refund, first, missed + SPACING), KeptLease(past_horizon=True))
    assert isinstance(second, Absent)
    assert not second.harmless
    assert sent(fake, refund.id) == []


def test_a_refund_sent_anew_after_absence_owes_two_misses_of_its_own(fake: FakeServer, refund: Attempt) -> None:
    fake.fault("close_before", route="refund", key=refund.id)
    lease = KeptLease()
    anew = replace(refund, progress={MISSED_AT: 1.0}, sent_age_seconds=30 * HOUR)
    assert isinstance(perform(fake, anew, lease), Unknown)
    assert lease.records == [{MISSED_AT: None}]
    outcome = perform(fake, late(anew, lease, 30 * HOUR), KeptLease(past_horizon=True))
    assert isinstance(outcome, Unknown)
    assert outcome.after_seconds == SPACING


@pytest.mark.parametrize("action", ["status_429", "status_401", "close_after", "status_502_html", "html_200"])
def test_a_look_up_that_stripe_does_not_answer_is_no_miss(fake: FakeServer, refund: Attempt, action: str) -> None:
    fake.fault(action, route="list_refunds", times=None)
    lease = KeptLease(past_horizon=True)
    outcome = perform(fake, late(refund, KeptLease(), 25 * HOUR), lease)
    assert isinstance(outcome, Deferred)
    assert lease.records == []


@pytest.mark.parametrize(("action", "back"), [("status_500_stored_before", []), ("status_500_stored_after", [1000])])
def test_a_stored_500_is_probed_once_and_then_looked_up(
    fake: FakeServer, refund: Attempt, action: str, back: list[int]
) -> None:
    fake.fault(action, route="refund", key=refund.id)
    assert isinstance(perform(fake, refund, KeptLease()), Unknown)
    lease = KeptLease()
    outcome = perform(fake, again(refund, lease), lease)
    third = perform(fake, again(refund, lease), KeptLease())
    for told in (outcome, third):
        assert isinstance(told, Succeeded if back else Unknown)
    assert [row["replayed"] for row in sent(fake, refund.id)] == [False, True]
    assert given(fake, refund) == back


def test_a_replayed_500_and_no_look_up_stays_unknown(fake: FakeServer, refund: Attempt) -> None:
    fake.fault("status_500_stored_after", route="refund", key=refund.id)
    perform(fake, refund, KeptLease())
    fake.fault("status_429", route="list_refunds")
    # Not in doubt, as after a proof of absence: still not the state before the claim, for this attempt has sent.
    assert isinstance(perform(fake, refund, KeptLease()), Unknown)


@pytest.mark.parametrize(("ends", "kind"), [("succeeded", Succeeded), ("failed", Failed), ("canceled", Failed)])
def test_a_pending_refund_is_awaited_and_asked_for_by_its_id(
    fake: FakeServer, refund: Attempt, ends: str, kind: type
) -> None:
    fake.admin("settings", {"refund_status": "pending"})
    lease = KeptLease()
    outcome = perform(fake, refund, lease)
    assert isinstance(outcome, Awaiting)
    polled = again(refund, lease, prior=State.AWAITING, in_doubt=False)
    assert isinstance(perform(fake, polled, KeptLease()), Awaiting)
    fake.admin(f"refunds/{outcome.ref}/finish", {"as": ends})
    for settled in (perform(fake, polled, KeptLease()), provider(fake).look_up(polled, seconds=5)):
        assert isinstance(settled, kind)
    assert len(sent(fake, refund.id)) == 1


def test_w9_an_awaited_refund_whose_id_was_not_recorded_is_looked_for_and_not_sent_again(
    fake: FakeServer, refund: Attempt
) -> None:
    class OverLease(KeptLease):
        def record(self, progress: Mapping[str, Any]) -> None:  # noqa: ARG002 - it is over
            raise LeaseLost

    fake.admin("settings", {"refund_status": "pending"})
    assert isinstance(perform(fake, refund, OverLease()), Awaiting)  # an own answer, whatever became of the lease
    polled = again(refund, KeptLease(), prior=State.AWAITING, in_doubt=False)
    assert isinstance(perform(fake, polled, KeptLease()), Awaiting)
    assert len(sent(fake, refund.id)) == 1


def test_w9_an_answer_whose_id_cannot_be_noted_is_still_an_answer(fake: FakeServer, refund: Attempt) -> None:
    """A database that is away for this moment must not turn it into "nothing was sent": a day later the key is gone."""

    class Away(KeptLease):
        def record(self, progress: Mapping[str, Any]) -> None:  # noqa: ARG002 - it is away
            raise DependencyUnavailable("Postgres does not answer")

    assert isinstance(perform(fake, refund, Away()), Succeeded)


@pytest.mark.parametrize("amount", [4200, 4000])
def test_what_another_refund_took_cannot_be_given_back_again(
    fake: FakeServer, charge: Concerned, refund: Attempt, amount: int
) -> None:
    other = upon(charge, "refund", {"amount": amount, "currency": "eur"})
    assert isinstance(perform(fake, other, KeptLease()), Succeeded)
    outcome = perform(fake, refund, KeptLease())
    assert isinstance(outcome, Failed)
    assert given(fake, refund) == []


def test_nothing_left_to_refund_because_ours_took_it_is_a_success(fake: FakeServer, charge: Concerned) -> None:
    refund = upon(charge, "refund", {"amount": 4200, "currency": "eur"})
    perform(fake, refund, KeptLease())
    fake.advance(hours=25)  # the key is forgotten
    outcome = perform(fake, again(refund, KeptLease()), KeptLease())  # and the horizon was not asked, for the test
    assert isinstance(outcome, Succeeded)
    assert outcome.evidence["adopted"] is True
    assert given(fake, refund) == [4200]


def test_the_look_up_reads_every_page(fake: FakeServer, charge: Concerned, refund: Attempt) -> None:
    assert isinstance(perform(fake, refund, KeptLease()), Succeeded)
    for _ in range(101):
        other = upon(charge, "refund", {"amount": 1, "currency": "eur"})
        assert isinstance(perform(fake, other, KeptLease()), Succeeded)
    assert isinstance(provider(fake).look_up(refund, seconds=10), Succeeded)


def test_looking_finds_what_is_there_and_sends_nothing(fake: FakeServer, refund: Attempt) -> None:
    assert word(provider(fake).look_up(refund, seconds=5)) == "not_found"
    assert sent(fake, refund.id) == []
    perform(fake, refund, KeptLease())
    outcome = provider(fake).look_up(refund, seconds=5)
    assert isinstance(outcome, Succeeded)
    assert outcome.evidence["adopted"] is True
    assert word(provider(fake).look_up(replace(refund, concerned=None), seconds=5)) == "not_found"


def test_a_lost_lease_gives_nothing_back(fake: FakeServer, refund: Attempt) -> None:
    with pytest.raises(LeaseLost):
        perform(fake, refund, KeptLease(lost_at=1))
    assert sent(fake, refund.id) == []
