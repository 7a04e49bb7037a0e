"""The Stripe fake misbehaves exactly as told, and comes back from SIGKILL with effect and answer together."""

from __future__ import annotations

import socket
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, running, wait_until
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


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("empty_200", stripe.APIError),
        ("html_200", stripe.APIError),
        ("truncate_chunked", stripe.APIConnectionError),
        ("reset", stripe.APIConnectionError),
        ("close", stripe.APIConnectionError),
    ],
)
def test_an_unreadable_answer_stands_for_a_charge_that_happened(
    fake: FakeServer, effect: str, action: str, error: type[stripe.StripeError]
) -> None:
    fake.fault(action, key=effect)
    with pytest.raises(error) as lost:
        create(fake, effect, confirm=True)
    assert lost.value.http_status == (200 if error is stripe.APIError else None)
    assert charges(fake, effect) == 1
    assert headers(create(fake, effect, confirm=True))["idempotent-replayed"] == "true"
    assert charges(fake, effect) == 1
    assert fake.hits() == 1


@pytest.mark.parametrize("action", ["reset", "close"])
def test_a_connection_can_die_before_the_effect_too(fake: FakeServer, effect: str, action: str) -> None:
    fake.fault(action, key=effect, when="before")
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, confirm=True)
    assert charges(fake, effect) == 0


@pytest.mark.parametrize(("action", "end"), [("reset", ConnectionResetError), ("close", b"")])
def test_reset_is_an_rst_and_close_is_a_fin(fake: FakeServer, action: str, end: Any) -> None:
    fake.fault(action, route="list_events")
    with socket.create_connection(("127.0.0.1", fake.address["port"]), timeout=5) as raw:
        raw.sendall(b"GET /v1/events HTTP/1.1\r\nHost: fake\r\nAuthorization: Bearer sk_test_1\r\n\r\n")
        if isinstance(end, bytes):
            assert raw.recv(1) == end
        else:
            with pytest.raises(end):
                raw.recv(1)


def test_an_answer_can_hang_until_it_is_released(fake: FakeServer, effect: str) -> None:
    fake.fault("hang", key=effect, seconds=None)
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(create, fake, effect, confirm=True)
        wait_until(lambda: fake.holding() == 1, "the answer that is held back")
        assert charges(fake, effect) == 1
        assert not hanging.done()
        fake.admin("release", {})
        assert hanging.result(10).status == "succeeded"


def test_a_fault_finds_an_effect_by_the_metadata_in_the_body(fake: FakeServer, effect: str) -> None:
    fake.fault("close_before", effect=effect)
    create(fake, "somebody-else", key=f"{effect}-other-key")
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, key="a key that says nothing")
    assert fake.hits() == 1


# --- a door that is shut -------------------------------------------------------------------------


def test_a_shut_door_refuses_connections_until_it_is_released(fake: FakeServer, effect: str) -> None:
    client = sdk(fake)
    client.v1.payment_intents.create(params(effect), {"idempotency_key": f"{effect}:create"})
    fake.fault("refuse", seconds=None)
    with pytest.raises(stripe.APIConnectionError, match=r"refused|reset"):
        # Also on the connection that this client had kept open, which hears of it a moment earlier or later.
        client.v1.payment_intents.create(params(effect), {"idempotency_key": f"{effect}:create"})
    assert fake.hits() == 1
    assert len(sent(fake, effect)) == 1, "nothing arrived"
    fake.admin("release", {})
    wait_until(lambda: _connects(fake), "the open door")
    assert headers(create(fake, effect))["idempotent-replayed"] == "true"


def test_a_door_that_a_request_shuts_opens_again_after_a_while(fake: FakeServer, effect: str) -> None:
    fake.fault("refuse", key=effect, nth=2, seconds=0.5)
    create(fake, effect, confirm=True)
    with pytest.raises(stripe.APIConnectionError):
        create(fake, effect, key=f"{effect}:2", confirm=True)
    assert not _connects(fake)
    wait_until(lambda: _connects(fake), "the open door")
    assert charges(fake, effect) == 1
    assert fake.hits() == 1


def _connects(fake: FakeServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", fake.address["port"])) == 0


# --- what becomes of a stored 500 ----------------------------------------------------------------


def stored_500(fake: FakeServer, effect: str, when: str, then: str, seconds: float = 3600) -> None:
    fake.fault(f"status_500_stored_{when}", key=effect, then=then, seconds=seconds)
    with pytest.raises(stripe.APIError):
        create(fake, effect, confirm=True)


def told(fake: FakeServer, effect: str) -> list[stripe.Event]:
    """Events about one effect, newest first."""
    return [
        event
        for event in sdk(fake).v1.events.list({"limit": 100}).data
        if event.to_dict()["data"]["object"].get("metadata", {}).get("effect_id") == effect
    ]


def test_rolled_forward_the_effect_stands_and_its_events_come_late(fake: FakeServer, effect: str) -> None:
    stored_500(fake, effect, "after", "roll_forward")
    assert (charges(fake, effect), told(fake, effect)) == (1, [])
    fake.advance(hours=1)
    wait_until(lambda: told(fake, effect), "the events")
    assert "payment_intent.succeeded" in {event.type for event in told(fake, effect)}
    assert {event.to_dict()["request"]["idempotency_key"] for event in told(fake, effect)} == {f"{effect}:create"}
    assert all(event.created >= fake.admin("clock")["now"] - 60 for event in told(fake, effect))
    assert charges(fake, effect) == 1
    with pytest.raises(stripe.APIError):
        create(fake, effect, confirm=True)  # the stored answer stays what it was


def test_rolled_forward_from_nothing_the_effect_itself_comes_late(fake: FakeServer, effect: str) -> None:
    stored_500(fake, effect, "before", "roll_forward")
    assert (charges(fake, effect), told(fake, effect)) == (0, [])
    fake.advance(hours=1)
    wait_until(lambda: charges(fake, effect) == 1, "the charge that came late")
    assert {event.to_dict()["request"]["idempotency_key"] for event in told(fake, effect)} == {f"{effect}:create"}


def test_rolled_back_the_money_goes_back_with_an_event(fake: FakeServer, effect: str) -> None:
    stored_500(fake, effect, "after", "roll_back")
    assert [row["kind"] for row in fake.admin(f"ledger?effect_id={effect}")["money"]] == ["charge"]
    fake.advance(hours=1)
    wait_until(lambda: any(event.type == "charge.refunded" for event in told(fake, effect)), "the refund's event")
    (charge,) = sdk(fake).v1.charges.list({"payment_intent": _intent(fake, effect)}).data
    assert charge.refunded


def test_rolled_back_what_moved_no_money_is_cancelled(fake: FakeServer, effect: str) -> None:
    fake.fault("status_500_stored_after", key=effect, then="roll_back", seconds=0)
    with pytest.raises(stripe.APIError):
        create(fake, effect)
    wait_until(lambda: "payment_intent.canceled" in {event.type for event in told(fake, effect)}, "the cancellation")
    assert sdk(fake).v1.payment_intents.retrieve(_intent(fake, effect)).status == "canceled"


def test_in_silence_the_effect_stands_and_no_event_ever_says_so(fake: FakeServer, effect: str) -> None:
    stored_500(fake, effect, "after", "silence")
    fake.advance(hours=48)
    assert (charges(fake, effect), told(fake, effect)) == (1, [])
    listed = sdk(fake).v1.payment_intents.list({"customer": "cus_1", "limit": 100}).data
    assert effect in {intent.metadata.to_dict()["effect_id"] for intent in listed}


def test_a_repair_survives_a_sigkill(own_fake: FakeServer, effect: str) -> None:
    stored_500(own_fake, effect, "after", "roll_forward")
    own_fake.kill()
    own_fake.start()
    own_fake.advance(hours=1)
    wait_until(lambda: told(own_fake, effect), "the events")


@pytest.mark.parametrize("wrong", [{"then": "pray"}, {"then": "roll_back", "action": "hang"}, {"colour": 1}])
def test_a_fault_that_does_not_exist_is_refused(fake: FakeServer, wrong: dict[str, Any]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="422"):
        fake.admin("faults", {"action": "status_500_stored_after", **wrong})


def _intent(fake: FakeServer, effect: str) -> str:
    listed = sdk(fake).v1.payment_intents.list({"customer": "cus_1", "limit": 100}).data
    return next(str(intent.id) for intent in listed if intent.metadata.to_dict()["effect_id"] == effect)


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


@pytest.mark.parametrize("chosen_by", ["admin port", "command line"])
def test_a_restart_may_answer_what_was_in_flight_with_a_500_for_good(
    tmp_path: Path, effect: str, chosen_by: str
) -> None:
    options = ["--orphans", "stored_500"] if chosen_by == "command line" else []
    with running("stripe", tmp_path / "stripe", *options) as fake:
        if chosen_by == "admin port":
            fake.admin("keys", {"orphans": "stored_500"})
        fake.fault("crash", key=effect, when="before")
        with pytest.raises(stripe.APIConnectionError):
            create(fake, effect, confirm=True)
        assert fake.wait_dead() == -9
        fake.start()
        assert fake.admin("keys")["orphans"] == "stored_500"
        for _ in range(2):
            with pytest.raises(stripe.APIError) as lost:
                create(fake, effect, confirm=True)
            assert (lost.value.http_status, (lost.value.headers or {})["Idempotent-Replayed"]) == (500, "true")
        assert charges(fake, effect) == 0
        fake.advance(hours=25)
        assert create(fake, effect, confirm=True).status == "succeeded"


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
