"""What a lost answer left at Stripe is found: by customer, by key, by mark; and only two spaced misses prove absence."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from service.core.effect import Attempt
from service.core.outcome import Absent, Awaiting, Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.stripe.api import Call
from service.providers.stripe.attempt import ABSENCE_SPACING_SECONDS, MISSED_AT, PLACE, STORED_500
from service.providers.stripe.charges import expected
from service.providers.stripe.look_ups import LookUps
from tests.contract.fake_servers import FakeServer, running
from tests.contract.leases import KeptLease, again, attempt
from tests.contract.paid import HOUR, a_charge, api, charges, sent, word

SPACING = ABSENCE_SPACING_SECONDS + 10.0
READS = ["list", "list_events", "search"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture
def fake(server: FakeServer) -> Iterator[FakeServer]:
    yield server
    server.reset()


@pytest.fixture(params=["cus_1", None], ids=["customer", "nobody"])
def charge(request: pytest.FixtureRequest) -> Attempt:
    return a_charge(customer=request.param)


def perform(fake: FakeServer, charge: Attempt, lease: KeptLease) -> Outcome:
    return charges(fake).perform(charge, lease)


def late(charge: Attempt, lease: KeptLease, age: float) -> Attempt:
    return again(charge, lease, sent_age_seconds=age)


def a_call() -> Call:
    return Call(5.0, KeptLease().guard)


def events_read(fake: FakeServer) -> list[object]:
    return [row for row in fake.admin("requests")["requests"] if row["route"] == "list_events"]


def money(fake: FakeServer, charge: Attempt) -> list[int]:
    return [row["amount"] for row in fake.admin("ledger")["money"] if row["metadata"].get("effect_id") == charge.id]


def lost(fake: FakeServer, charge: Attempt, action: str = "close_after") -> None:
    """The create is done and nobody heard of it."""
    fake.fault(action, route="create", key=charge.id)
    assert isinstance(perform(fake, charge, KeptLease()), Unknown)


def test_after_the_horizon_a_created_intent_is_found_recorded_and_confirmed(fake: FakeServer, charge: Attempt) -> None:
    lost(fake, charge)
    fake.advance(hours=25)
    lease = KeptLease(past_horizon=True)
    outcome = perform(fake, late(charge, KeptLease(), 25 * HOUR), lease)
    assert isinstance(outcome, Succeeded)
    assert lease.records == [{"payment_intent": outcome.ref}]  # W11: before the confirm
    assert [row["route"] for row in sent(fake, charge.id)] == ["create", "confirm"]
    assert money(fake, charge) == [4200]


def test_a_worker_whose_clock_is_days_ahead_looks_where_the_database_says(
    fake: FakeServer, charge: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the chaos suite: it asked for what was made after it had been made; only the lagging search was left."""
    lost(fake, charge)
    fake.advance(hours=25)
    right = time.time()
    monkeypatch.setattr("service.providers.stripe.look_ups.time", SimpleNamespace(time=lambda: right + 50 * HOUR))
    doubtful = replace(late(charge, KeptLease(), 25 * HOUR), clock=right)
    before = len(fake.admin("requests")["requests"])
    assert isinstance(perform(fake, doubtful, KeptLease(past_horizon=True)), Succeeded)
    asked = [row["route"] for row in fake.admin("requests")["requests"][before:]]
    assert "search" not in asked
    assert money(fake, charge) == [4200]


def test_a_stored_500_on_the_create_is_probed_once_and_the_intent_found(fake: FakeServer, charge: Attempt) -> None:
    lost(fake, charge, "status_500_stored_after")
    lease = KeptLease()
    assert isinstance(perform(fake, again(charge, lease), lease), Succeeded)
    assert [row["replayed"] for row in sent(fake, f"{charge.id}:create")] == [False, True]
    assert money(fake, charge) == [4200]


def test_a_stored_500_that_left_nothing_stays_unknown_without_another_send(fake: FakeServer, charge: Attempt) -> None:
    lost(fake, charge, "status_500_stored_before")
    lease = KeptLease()
    second = perform(fake, again(charge, lease), lease)
    third = perform(fake, again(charge, lease), lease)
    assert (word(second), word(third)) == ("status_500", "status_500")
    assert lease.records == [{STORED_500: True}]
    assert len(sent(fake, charge.id)) == 2
    assert money(fake, charge) == []


def test_absence_is_two_misses_and_then_a_fresh_send_is_charged_once(fake: FakeServer, charge: Attempt) -> None:
    lease = KeptLease(past_horizon=True)
    first = perform(fake, late(charge, lease, 21 * HOUR), lease)
    assert isinstance(first, Unknown)
    assert (first.reason, first.after_seconds) == ("not_found", SPACING)
    missed = lease.records[0][MISSED_AT]
    assert word(perform(fake, late(charge, lease, missed + SPACING - 1), lease)) == "not_found"
    second = perform(fake, late(charge, lease, missed + SPACING), lease)
    assert second == Absent("absent", harmless=True, evidence=second.evidence)
    assert sent(fake, charge.id) == []
    fresh = attempt(charge.id, charge.request, progress={MISSED_AT: missed}, sent_age_seconds=missed + SPACING + 60)
    after = KeptLease()
    assert isinstance(perform(fake, fresh, after), Succeeded)
    assert after.records[0] == {MISSED_AT: None}
    assert money(fake, charge) == [4200]


def test_a_doubt_after_absence_owes_two_misses_of_its_own(fake: FakeServer, charge: Attempt) -> None:
    fake.fault("close_before", route="create", key=charge.id)
    lease = KeptLease()
    fresh = attempt(charge.id, charge.request, progress={MISSED_AT: 1.0, STORED_500: True}, sent_age_seconds=30 * HOUR)
    assert isinstance(perform(fake, fresh, lease), Unknown)
    assert lease.records == [{MISSED_AT: None, STORED_500: None}]
    outcome = perform(fake, late(fresh, lease, 30 * HOUR), KeptLease(past_horizon=True))
    assert isinstance(outcome, Unknown)
    assert outcome.after_seconds == SPACING


def test_what_stripe_no_longer_shows_cannot_be_missed(fake: FakeServer) -> None:
    lease = KeptLease(past_horizon=True)
    assert word(perform(fake, late(a_charge(), lease, 30 * 24 * HOUR), lease)) == "key_expired"
    assert lease.records == []


@pytest.mark.parametrize("route", READS)
@pytest.mark.parametrize("action", ["status_429", "status_401", "close_after", "status_502_html", "empty_200"])
def test_a_look_up_that_stripe_does_not_answer_is_no_miss(fake: FakeServer, route: str, action: str) -> None:
    fake.fault(action, route=route, times=None)
    lease = KeptLease(past_horizon=True)
    charge = a_charge()
    outcome = perform(fake, late(charge, lease, 25 * HOUR), lease)
    assert isinstance(outcome, Deferred)
    # A place to go on from may be noted, when the events filled more than a page; a miss may not.
    assert [name for record in lease.records for name in record if name != PLACE] == []
    assert sent(fake, charge.id) == []
    assert isinstance(charges(fake).look_up(charge, seconds=5), Deferred)


def test_a_look_up_ends_by_its_deadline(fake: FakeServer) -> None:
    fake.fault("drip", route="list", times=None)
    assert isinstance(charges(fake).look_up(a_charge(), seconds=0.5), Deferred)
    assert LookUps(api(fake), -1.0).intent(a_charge(), expected(a_charge(), livemode=False)) == Deferred(
        "look_up_unfinished", 1.0, evidence={"path": "/v1/payment_intents"}
    )


def test_the_list_of_a_busy_customer_is_read_to_its_end(fake: FakeServer) -> None:
    charge = a_charge(customer="cus_busy")
    lost(fake, charge)
    other = {"amount": 100, "currency": "eur", "customer": "cus_busy"}
    for _ in range(101):
        assert api(fake).create(other, str(uuid.uuid4()), a_call(), in_doubt=False).status == 200
    assert word(charges(fake).look_up(charge, seconds=10)) == "not_confirmed"


def test_a_look_up_too_long_for_one_attempt_goes_on_where_the_last_one_ended(fake: FakeServer) -> None:
    charge = a_charge(customer=None)
    lost(fake, charge)
    for _ in range(250):
        other = {"amount": 100, "currency": "eur"}
        assert api(fake).create(other, str(uuid.uuid4()), a_call(), in_doubt=False).status == 200
    fake.fault("drip", route="list_events", nth=3)
    first = KeptLease(1.0, past_horizon=True)
    assert isinstance(perform(fake, late(charge, KeptLease(), 25 * HOUR), first), Deferred)
    (noted,) = first.records
    assert noted["look_up"]["began"] == 25 * HOUR
    before = len(events_read(fake))
    second = KeptLease(past_horizon=True)
    assert isinstance(perform(fake, late(charge, first, 25 * HOUR + 60), second), Succeeded)
    assert len(events_read(fake)) - before == 1
    assert money(fake, charge) == [4200]


def test_a_second_miss_counts_from_where_its_look_began(fake: FakeServer) -> None:
    charge, first = a_charge(customer=None), 21 * HOUR
    place = {"path": "/v1/events", "after": {}, "began": first + SPACING - 60}
    kept = KeptLease(past_horizon=True)
    kept.records.append({MISSED_AT: first, "look_up": place})
    lease = KeptLease(past_horizon=True)
    outcome = perform(fake, late(charge, kept, first + SPACING + 600), lease)
    assert isinstance(outcome, Unknown)
    assert outcome.after_seconds == pytest.approx(60)
    assert lease.records == [{"look_up": None}]


def test_without_a_customer_the_event_names_the_key(fake: FakeServer) -> None:
    charge = a_charge(customer=None)
    lost(fake, charge)
    outcome = charges(fake).look_up(charge, seconds=5)
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "not_confirmed"
    assert outcome.evidence["payment_intent"].startswith("pi_")
    assert [row["route"] for row in sent(fake, charge.id)] == ["create"]


def test_search_finds_what_the_events_do_not_name(fake: FakeServer) -> None:
    """Made under another key, as by an earlier life of the database: only the mark tells."""
    charge = a_charge(customer=None)
    asked = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"}
    params = {**asked, "metadata": {"effect_id": charge.id}}
    assert api(fake).create(params, "another-key", a_call(), in_doubt=False).status == 200
    assert word(charges(fake).look_up(charge, seconds=5)) == "not_found"  # the index lags
    fake.advance(hours=1)
    assert word(charges(fake).look_up(charge, seconds=5)) == "not_confirmed"


@pytest.mark.parametrize(
    ("card", "kind"),
    [("pm_card_visa", Succeeded), ("pm_card_chargeDeclined", Failed), ("pm_usBankAccount_success", Awaiting)],
)
def test_looking_tells_how_the_charge_ended_by_id_and_without(fake: FakeServer, card: str, kind: type) -> None:
    charge, lease = a_charge(payment_method=card), KeptLease()
    assert isinstance(perform(fake, charge, lease), kind)
    before = len(sent(fake, charge.id))
    for seen in (again(charge, lease), again(charge, KeptLease())):
        outcome = charges(fake).look_up(seen, seconds=5)
        assert isinstance(outcome, kind)
        assert outcome.evidence["adopted"] is True
    assert len(sent(fake, charge.id)) == before


def test_a_found_intent_with_another_amount_is_a_contradiction(fake: FakeServer) -> None:
    charge = a_charge()
    lost(fake, charge)
    other = attempt(charge.id, {**charge.request, "amount": 1})
    lease = KeptLease(past_horizon=True)
    assert isinstance(charges(fake).look_up(other, seconds=5), Contradiction)
    assert isinstance(perform(fake, late(other, KeptLease(), 25 * HOUR), lease), Contradiction)
    assert money(fake, charge) == []
