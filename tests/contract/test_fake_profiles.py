"""Key profiles: one row for each provider's habits and each rule, seen through the real SDK."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, running
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures among them
    charges,
    create,
    fresh_effect,
    headers,
    one_server,
    shared_fake,
)

DECLINED = "pm_card_visa_chargeDeclined"


@dataclass(frozen=True)
class Habits:
    """What a profile promises about a second request with the same key, and how long."""

    hours: float
    other_body: str  # refused | replayed
    decline: str  # replayed | rerun
    stored_500_then: str  # replayed | rerun | completed
    money_after_500_and_retry: int


PROFILES = {
    "stripe": Habits(24, "refused", "replayed", "replayed", 1),
    "forgets_500": Habits(24, "refused", "replayed", "rerun", 2),
    "half_hour_no_compare": Habits(0.5, "replayed", "replayed", "replayed", 1),
    "successes_only": Habits(24, "refused", "rerun", "rerun", 2),
    "rerun_failures": Habits(24, "refused", "rerun", "completed", 1),
}
each = pytest.mark.parametrize("profile", PROFILES)


@pytest.fixture(name="honest")
def back_to_stripe(fake: FakeServer) -> Iterator[FakeServer]:
    yield fake
    fake.admin("keys", {"profile": "stripe"})


def turn(fake: FakeServer, profile: str) -> Habits:
    assert fake.admin("keys", {"profile": profile})["profile"] == profile
    return PROFILES[profile]


def replayed(answer: stripe.StripeObject) -> bool:
    return "idempotent-replayed" in headers(answer)


@each
def test_a_success_is_replayed_inside_the_window_and_executed_again_after_it(
    honest: FakeServer, effect: str, profile: str
) -> None:
    habits = turn(honest, profile)
    first = create(honest, effect, confirm=True)
    honest.advance(hours=habits.hours - 0.1)
    again = create(honest, effect, confirm=True)
    assert (again.id, replayed(again), charges(honest, effect)) == (first.id, True, 1)
    honest.advance(hours=0.2)
    assert not replayed(create(honest, effect, confirm=True))
    assert charges(honest, effect) == 2


@each
def test_another_body_under_the_same_key(honest: FakeServer, effect: str, profile: str) -> None:
    habits = turn(honest, profile)
    create(honest, effect, confirm=True)
    if habits.other_body == "refused":
        with pytest.raises(stripe.IdempotencyError):
            create(honest, effect, confirm=True, amount=4300)
    else:
        other = create(honest, effect, confirm=True, amount=4300)
        assert (other.amount, replayed(other)) == (4200, True)
    assert charges(honest, effect) == 1


@each
def test_a_decline_under_the_same_key(honest: FakeServer, effect: str, profile: str) -> None:
    habits = turn(honest, profile)
    marks = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            create(honest, effect, confirm=True, payment_method=DECLINED)
        marks.append("Idempotent-Replayed" in (declined.value.headers or {}))
    assert marks == [False, habits.decline == "replayed"]


@each
def test_a_500_whose_effect_was_done(honest: FakeServer, effect: str, profile: str) -> None:
    habits = turn(honest, profile)
    honest.fault("status_500_stored_after", key=effect)
    with pytest.raises(stripe.APIError):
        create(honest, effect, confirm=True)
    if habits.stored_500_then == "replayed":
        with pytest.raises(stripe.APIError):
            create(honest, effect, confirm=True)
    else:
        assert create(honest, effect, confirm=True).status == "succeeded"
    assert charges(honest, effect) == habits.money_after_500_and_retry


@each
def test_a_500_without_effect(honest: FakeServer, effect: str, profile: str) -> None:
    habits = turn(honest, profile)
    honest.fault("status_500_stored_before", key=effect)
    with pytest.raises(stripe.APIError):
        create(honest, effect, confirm=True)
    if habits.stored_500_then == "replayed":
        with pytest.raises(stripe.APIError):
            create(honest, effect, confirm=True)
        assert charges(honest, effect) == 0
    else:
        assert not replayed(create(honest, effect, confirm=True))
        assert replayed(create(honest, effect, confirm=True))
        assert charges(honest, effect) == 1


@each
def test_a_key_in_flight_is_a_409(honest: FakeServer, effect: str, profile: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from tests.contract.fake_servers import wait_until

    turn(honest, profile)
    honest.fault("barrier", key=effect)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(create, honest, effect, confirm=True)
        wait_until(lambda: honest.holding() == 1, "the first request at the barrier")
        with pytest.raises(stripe.APIError) as busy:
            create(honest, effect, confirm=True)
        assert (busy.value.http_status, busy.value.error.code) == (409, "idempotency_key_in_use")
        honest.admin("release", {})
        assert first.result(10).status == "succeeded"
    assert charges(honest, effect) == 1


def test_what_was_completed_after_a_failure_is_told_again(honest: FakeServer, effect: str) -> None:
    turn(honest, "rerun_failures")
    honest.fault("status_500_stored_after", key=effect)
    with pytest.raises(stripe.APIError):
        create(honest, effect, confirm=True)
    assert create(honest, effect, confirm=True).id == create(honest, effect, confirm=True).id


@pytest.mark.parametrize("chosen_by", ["admin port", "command line"])
def test_a_profile_outlives_a_restart(tmp_path: Path, chosen_by: str) -> None:
    options = ["--profile", "successes_only"] if chosen_by == "command line" else []
    with running("stripe", tmp_path / "stripe", *options) as fake:
        if chosen_by == "admin port":
            turn(fake, "successes_only")
        fake.kill()
        fake.start()
        assert fake.admin("health")["profile"] == "successes_only"


@pytest.mark.parametrize("wrong", [{"profile": "generous"}, {"orphans": "adopted"}, {"colour": 1}])
def test_a_habit_that_does_not_exist_is_refused_and_changes_nothing(honest: FakeServer, wrong: dict[str, Any]) -> None:
    before = honest.admin("keys")
    with pytest.raises(urllib.error.HTTPError, match="422"):
        honest.admin("keys", {"profile": "successes_only", **wrong})
    assert honest.admin("keys") == before
