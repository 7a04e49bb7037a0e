"""The Stripe fake misbehaves exactly as told, and comes back from SIGKILL with effect and answer together."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, wait_until
from tests.contract.fake_stripe import (  # noqa: F401 - fixtures among them
    charges,
    create,
    fresh_effect,
    headers,
    killable_fake,
    one_server,
    params,
    sdk,
    sent,
    shared_fake,
)

# --- faults --------------------------------------------------------------------------------------


def test_close_before_cuts_without_an_effect(fake: FakeServer, effect: str) -> None:
    fake.fault("close_before", key=effect)
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, confirm=True)
    assert charges(fake, effect) == 0
    assert "idempotent-replayed" not in headers(create(fake, effect, confirm=True))
    assert [row["status"] for row in sent(fake, effect)] == [None, 200]


def test_w8_close_after_charges_and_loses_the_answer_and_the_key_brings_it_back(fake: FakeServer, effect: str) -> None:
    fake.fault("close_after", route="create", key=effect)
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, confirm=True)
    assert charges(fake, effect) == 1
    assert headers(create(fake, effect, confirm=True))["idempotent-replayed"] == "true"
    assert charges(fake, effect) == 1


@pytest.mark.parametrize(("action", "seconds"), [("slow", 3), ("hang", 30)])
def test_slow_waits_before_the_effect_and_hang_after_it(
    fake: FakeServer, effect: str, action: str, seconds: float
) -> None:
    fake.fault(action, key=effect, seconds=seconds)
    with pytest.raises(stripe.APIConnectionError):
        sdk(fake, timeout=0.5).v1.payment_intents.create(
            params(effect, confirm=True), {"idempotency_key": f"{effect}:create"}
        )
    if action == "slow":
        assert charges(fake, effect) == 0
    # A client that went away does not stop the provider.
    wait_until(lambda: charges(fake, effect) == 1, "the charge of a client that went away")
    if action == "hang":
        assert [row["status"] for row in sent(fake, effect)] == [None]


@pytest.mark.parametrize(("moment", "effects"), [("before", 0), ("after", 1)])
def test_a_stored_500_is_replayed_whether_or_not_the_money_moved(
    fake: FakeServer, effect: str, moment: str, effects: int
) -> None:
    fake.fault(f"status_500_stored_{moment}", key=effect)
    for replayed in (None, "true"):
        with pytest.raises(stripe.APIError) as failed:
            create(fake, effect, confirm=True)
        assert failed.value.http_status == 500
        assert (failed.value.headers or {}).get("Idempotent-Replayed") == replayed
        assert (failed.value.headers or {})["Stripe-Should-Retry"] == "false"
    assert charges(fake, effect) == effects


@pytest.mark.parametrize(
    ("action", "error", "status"),
    [
        ("status_502_html", stripe.APIError, 502),
        ("status_429", stripe.RateLimitError, 429),
        ("status_401", stripe.AuthenticationError, 401),
        ("conflict_409", stripe.APIError, 409),
    ],
)
def test_a_front_answer_does_nothing_and_leaves_the_key_free(
    fake: FakeServer, effect: str, action: str, error: type[stripe.StripeError], status: int
) -> None:
    fake.fault(action, key=effect)
    with pytest.raises(error) as front:
        create(fake, effect, confirm=True)
    assert front.value.http_status == status
    assert charges(fake, effect) == 0
    assert "idempotent-replayed" not in headers(create(fake, effect, confirm=True))


def test_a_lock_timeout_is_a_429_that_asks_for_a_retry(fake: FakeServer, effect: str) -> None:
    fake.fault("status_429", key=effect, code="lock_timeout")
    with pytest.raises(stripe.RateLimitError) as locked:
        create(fake, effect)
    assert locked.value.error.code == "lock_timeout"  # `e.code` is None for this class of the SDK
    assert (locked.value.headers or {})["Stripe-Should-Retry"] == "true"


def test_a_truncated_answer_stands_for_a_charge_that_happened(fake: FakeServer, effect: str) -> None:
    fake.fault("truncate", key=effect)
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, confirm=True)
    assert charges(fake, effect) == 1
    assert create(fake, effect, confirm=True).status == "succeeded"


def test_a_dripping_answer_outlives_a_read_timeout(fake: FakeServer, effect: str) -> None:
    fake.fault("drip", key=effect)
    # Each read gets its bytes within the timeout; the whole answer takes several times as long.
    timeout_seconds, began = 1.0, time.monotonic()
    dripped = sdk(fake, timeout=timeout_seconds).v1.payment_intents.create(
        params(effect, confirm=True), {"idempotency_key": f"{effect}:create"}
    )
    assert dripped.status == "succeeded"
    assert time.monotonic() - began > 2 * timeout_seconds


def test_a_fault_strikes_the_nth_arrival_as_often_as_told(fake: FakeServer, effect: str) -> None:
    fake.fault("status_429", route="create", key=effect, nth=2, times=2)
    seen = []
    for number in range(4):
        try:
            create(fake, effect, key=f"{effect}:{number}")
            seen.append(200)
        except stripe.RateLimitError:
            seen.append(429)
    assert seen == [200, 429, 429, 200]
    assert [(fault["seen"], fault["hits"]) for fault in fake.admin("faults")["faults"]] == [(4, 2)]


# --- death and return ----------------------------------------------------------------------------


@pytest.mark.parametrize(("when", "effects"), [("before", 0), ("after", 1)])
def test_a_crash_leaves_effect_and_answer_together_or_neither(
    own_fake: FakeServer, effect: str, when: str, effects: int
) -> None:
    own_fake.fault("crash", key=effect, when=when)
    with pytest.raises(stripe.APIConnectionError):
        create(own_fake, effect, confirm=True)
    assert own_fake.wait_dead() == -9
    own_fake.start()
    assert charges(own_fake, effect) == effects
    again = create(own_fake, effect, confirm=True)
    assert headers(again).get("idempotent-replayed") == ("true" if effects else None)
    assert charges(own_fake, effect) == 1


def test_sigkill_right_after_the_ledger_shows_the_charge_keeps_charge_and_answer(
    own_fake: FakeServer, effect: str
) -> None:
    own_fake.fault("hang", key=effect, seconds=60)
    own_fake.advance(hours=3)
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(create, own_fake, effect, confirm=True)
        wait_until(lambda: charges(own_fake, effect) == 1, "the charge in the ledger")
        own_fake.kill()
        with pytest.raises(stripe.APIConnectionError):
            lost.result(10)
    own_fake.start()
    assert charges(own_fake, effect) == 1
    assert headers(create(own_fake, effect, confirm=True))["idempotent-replayed"] == "true"
    assert charges(own_fake, effect) == 1
    assert own_fake.admin("clock")["offset_seconds"] == 3 * 3600
    assert [row["status"] for row in sent(own_fake, effect)] == [None, 200]


def test_sigterm_ends_with_zero_at_once_even_while_a_request_is_held(own_fake: FakeServer, effect: str) -> None:
    own_fake.fault("barrier", key=effect)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(create, own_fake, effect)
        wait_until(lambda: own_fake.holding() == 1, "the held request")
        assert own_fake.stop() == 0
        with pytest.raises(stripe.APIConnectionError):
            held.result(10)


def test_the_ledger_cannot_be_rewritten(own_fake: FakeServer, effect: str) -> None:
    import sqlite3

    create(own_fake, effect, confirm=True)
    with sqlite3.connect(own_fake.state / "stripe.sqlite3") as database:
        for statement in ("UPDATE ledger SET amount = 1", "DELETE FROM ledger"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()
