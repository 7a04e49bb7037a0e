"""The hold refuses to send when the answer could come after the lease, or after the provider forgot the key."""

from __future__ import annotations

from time import monotonic

import pytest

from service.core.effect import Attempt, HorizonPassed, LeaseLost, Policy
from service.core.state import State
from service.engine.hold import ENOUGH_SECONDS, MARGIN_SECONDS, Hold

HOUR = 3600.0


def attempt(*, in_doubt: bool = False, sent_age: float = 0.0) -> Attempt:
    return Attempt(
        id="0198c0de-0000-7000-8000-000000000001",
        tenant="default",
        kind="charge",
        number=3,
        prior=State.UNKNOWN if in_doubt else State.PENDING,
        in_doubt=in_doubt,
        sent_age_seconds=sent_age,
        tries=1,
        waited_seconds=sent_age,
        request={},
        progress={},
        policy=Policy.AT_MOST_ONCE,
        dedupe_key="order:17:charge",
        context={},
    )


def hold(
    *, since: float = 0.0, lease: float = 90.0, deadline: float = 20.0, record=lambda _a, _p: True, **about: object
) -> Hold:
    """A hold claimed `since` seconds ago."""
    return Hold(attempt(**about), claimed_at=monotonic() - since, lease=lease, deadline=deadline, record=record)


def test_a_fresh_hold_may_send_and_has_a_whole_deadline():
    fresh = hold()
    fresh.guard()
    fresh.guard(horizon_seconds=HOUR)
    assert fresh.seconds_left() == 20.0


def test_the_end_of_the_lease_shortens_the_call_by_a_margin_for_the_settling_commit():
    late = hold(since=80.0)
    late.guard()
    assert 8.0 < late.seconds_left() <= 10.0 - MARGIN_SECONDS


@pytest.mark.parametrize("since", [90.0 - MARGIN_SECONDS - ENOUGH_SECONDS, 89.5, 90.0, 1e6])
def test_i9_a_process_that_was_paused_past_its_lease_may_not_send(since):
    late = hold(since=since)
    with pytest.raises(LeaseLost):
        late.guard()
    assert late.seconds_left() < ENOUGH_SECONDS


def test_the_time_left_is_never_negative():
    assert hold(since=1e6).seconds_left() == 0.0


@pytest.mark.parametrize(
    ("in_doubt", "sent_age", "refused"),
    [(True, HOUR, True), (True, HOUR - 30, False), (False, 10 * HOUR, False), (True, HOUR - 0.5, True)],
)
def test_the_horizon_matters_only_while_an_earlier_send_is_in_doubt(in_doubt, sent_age, refused):
    held = hold(since=1.0, in_doubt=in_doubt, sent_age=sent_age)
    if refused:
        with pytest.raises(HorizonPassed):
            held.guard(horizon_seconds=HOUR)
    else:
        held.guard(horizon_seconds=HOUR)
    held.guard()  # a send that needs no key has no horizon


def test_a_lost_lease_is_told_before_a_passed_horizon():
    with pytest.raises(LeaseLost):
        hold(since=100.0, in_doubt=True, sent_age=10 * HOUR).guard(horizon_seconds=HOUR)


def test_w11_a_recorded_point_reaches_the_store_and_renews_the_lease():
    written = []
    held = hold(since=85.0, record=lambda a, p: written.append((a.number, dict(p))) or True)
    assert held.seconds_left() < 5.0
    held.record({"payment_intent": "pi_1"})
    assert written == [(3, {"payment_intent": "pi_1"})]
    assert held.seconds_left() == 20.0
    held.guard()


def test_w11_a_refused_point_means_that_the_lease_is_lost():
    held = hold(since=85.0, record=lambda _a, _p: False)
    left = held.seconds_left()
    with pytest.raises(LeaseLost):
        held.record({"payment_intent": "pi_1"})
    assert held.seconds_left() <= left


def test_an_error_of_the_store_passes_through_unchanged():
    def broken(_a, _p):
        raise ConnectionError("away")

    with pytest.raises(ConnectionError, match="away"):
        hold(record=broken).record({})
