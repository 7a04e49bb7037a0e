"""The Stripe fake's webhooks: signed so that the SDK believes them, retried for three days, and as unruly as told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, wait_until
from tests.contract.fake_stripe import create, fresh_effect, killable_fake, sdk  # noqa: F401 - fixtures among them
from tests.contract.webhook_receiver import Receiver

SECRET = "whsec_for_tests"
HOUR = 3600


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture
def fake(own_fake: FakeServer) -> FakeServer:
    """Endpoints outlive a test, so each test has a fake of its own."""
    return own_fake


def register(fake: FakeServer, receiver: Receiver, **knobs: Any) -> str:
    return str(fake.admin("webhooks", {"url": receiver.url, "secret": SECRET, **knobs})["id"])


def deliveries(fake: FakeServer, query: str = "") -> list[dict[str, Any]]:
    return list(fake.admin(f"webhooks/deliveries{query}")["deliveries"])


def settled(fake: FakeServer) -> list[dict[str, Any]]:
    """All deliveries, once none of them waits for its first try."""
    return wait_until(
        lambda: (
            (rows := deliveries(fake)) and all(row["attempts"] or row["state"] == "dropped" for row in rows) and rows
        ),
        "a try of each delivery",
    )


def events(fake: FakeServer) -> list[str]:
    return [event.id for event in sdk(fake).v1.events.list({"limit": 100}).data][::-1]


def charge(fake: FakeServer, effect: str) -> list[str]:
    """One charge; returns its events, oldest first."""
    create(fake, effect, confirm=True)
    return events(fake)


# --- the honest sender ---------------------------------------------------------------------------


def test_each_event_arrives_once_in_order_and_the_sdk_believes_it(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    register(fake, receiver)
    expected = charge(fake, effect)
    got = receiver.wait(len(expected))
    believed = [stripe.Webhook.construct_event(post.body, post.signature, SECRET) for post in got]
    assert [event.id for event in believed] == expected
    assert believed[-1].to_dict()["request"]["idempotency_key"] == f"{effect}:create"
    assert {row["state"] for row in settled(fake)} == {"delivered"}
    assert {tried["status"] for row in deliveries(fake) for tried in row["attempts"]} == {200}


def test_the_signature_is_the_sdks_own(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    register(fake, receiver)
    charge(fake, effect)
    (post, *_) = receiver.wait(1)
    at = int(post.signature.split(",")[0].removeprefix("t="))
    own = stripe.WebhookSignature.generate_signature_header(post.body.decode(), SECRET, timestamp=at)
    assert post.signature == own
    assert abs(at - time.time()) < 60


def test_an_endpoint_hears_of_what_happens_after_it_was_registered_and_of_what_it_asked_for(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    create(fake, f"{effect}-before", confirm=True)
    register(fake, receiver, enabled_events=["payment_intent.*"])
    create(fake, effect, confirm=True)
    kinds = {post.json()["type"] for post in receiver.wait(2)}
    assert kinds == {"payment_intent.created", "payment_intent.succeeded"}
    assert {post.json()["data"]["object"]["metadata"]["effect_id"] for post in receiver.posts} == {effect}


def test_a_failed_delivery_is_tried_again_with_backoff_for_three_days(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    receiver.answers = 500
    register(fake, receiver, enabled_events=["payment_intent.succeeded"])
    charge(fake, effect)
    receiver.wait(1)
    for tries in range(2, 100):
        fake.advance(hours=12)
        (row,) = wait_until(
            lambda tries=tries: (
                (found := deliveries(fake)) and (found[0]["tries"] == tries or found[0]["state"] == "failed") and found
            ),  # type: ignore[misc] # the default binds now
            "the next try",
        )
        if row["state"] == "failed":
            break
    ages = [tried["at"] - row["owed_since"] for tried in row["attempts"]]
    assert 60 * HOUR < ages[-1] < 90 * HOUR
    assert [tried["status"] for tried in row["attempts"]] == [500] * len(ages)


def test_pauses_between_tries_double_and_a_late_2xx_ends_them(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    receiver.answers = 503
    register(fake, receiver, enabled_events=["payment_intent.succeeded"])
    charge(fake, effect)
    for seconds in (60, 120, 240):
        receiver.wait(1)
        receiver.forget()
        row = wait_until(
            lambda: (found := deliveries(fake)) and found[0]["attempts"] and found[0], "the attempt's record"
        )
        assert row["due_at"] - row["attempts"][-1]["at"] == pytest.approx(seconds)
        if seconds == 240:
            receiver.answers = 204
        fake.admin("clock", {"advance_seconds": seconds})
    receiver.wait(1)
    wait_until(lambda: deliveries(fake)[0]["state"] == "delivered", "the end of the tries")


def test_a_receiver_that_is_not_there_is_recorded_without_a_status(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    register(fake, receiver)
    receiver.close()
    charge(fake, effect)
    rows = settled(fake)
    assert {(row["state"], row["attempts"][0]["status"]) for row in rows} == {("pending", None)}
    assert "ConnectError" in rows[0]["attempts"][0]["error"]


def test_a_redirect_is_a_failure(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    receiver.answers = 302
    register(fake, receiver)
    charge(fake, effect)
    assert {row["state"] for row in settled(fake)} == {"pending"}


def test_what_is_owed_survives_a_sigkill_of_the_fake(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    receiver.answers = 500
    register(fake, receiver)
    expected = charge(fake, effect)
    settled(fake)
    fake.kill()
    receiver.forget()
    receiver.answers = 200
    fake.start()
    fake.advance(hours=1)
    assert sorted(post.json()["id"] for post in receiver.wait(len(expected))) == sorted(expected)
    expected += [event for event in charge(fake, f"{effect}-later") if event not in expected]
    assert sorted(post.json()["id"] for post in receiver.wait(len(expected))) == sorted(expected)


# --- knobs ---------------------------------------------------------------------------------------


def test_duplicate_sends_each_event_n_times(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    register(fake, receiver, duplicate=3)
    expected = charge(fake, effect)
    got = [post.json()["id"] for post in receiver.wait(3 * len(expected))]
    assert sorted(got) == sorted(3 * expected)
    assert [row["why"] for row in settled(fake)].count("duplicate") == 2 * len(expected)


def test_reorder_sends_each_window_backwards_and_a_rest_after_a_while(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    register(fake, receiver, reorder=2)
    expected = charge(fake, effect)
    assert len(expected) % 2 == 1, "one event is left over"
    swapped = [one for pair in zip(expected[1::2], expected[::2], strict=False) for one in pair]
    assert [post.json()["id"] for post in receiver.wait(len(swapped))] == swapped
    fake.admin("clock", {"advance_seconds": 10})
    assert [post.json()["id"] for post in receiver.wait(len(expected))] == [*swapped, expected[-1]]


def test_delay_holds_an_event_back_by_the_fakes_clock(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    register(fake, receiver, delay=HOUR)
    expected = charge(fake, effect)
    rows = wait_until(lambda: (found := deliveries(fake)) and len(found) == len(expected) and found, "what is owed")
    assert {row["due_at"] - row["owed_since"] for row in rows} == {HOUR}
    assert receiver.posts == []
    fake.advance(hours=1)
    receiver.wait(len(expected))


def test_drop_loses_every_nth_event(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    register(fake, receiver, drop=2)
    expected = charge(fake, effect)
    rows = settled(fake)
    assert [row["event"] for row in rows if row["state"] == "dropped"] == expected[1::2]
    assert [post.json()["id"] for post in receiver.wait(len(expected[::2]))] == expected[::2]


def test_drop_loses_types_and_a_resend_brings_one_back(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    endpoint = register(fake, receiver, drop=["payment_intent.succeeded"])
    expected = charge(fake, effect)
    (lost,) = [row["event"] for row in settled(fake) if row["state"] == "dropped"]
    assert lost in expected
    receiver.wait(len(expected) - 1)
    assert fake.admin("webhooks/resend", {"event": lost, "endpoint": endpoint}) == {"resent": 1}
    assert receiver.wait(len(expected))[-1].json()["id"] == lost


def test_double_event_makes_two_events_of_one_change_and_stripe_lists_both(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    register(fake, receiver, double_event=True, enabled_events=["payment_intent.succeeded"])
    charge(fake, effect)
    one, two = (post.json() for post in receiver.wait(2))
    assert one["id"] != two["id"]
    assert one["data"] == two["data"]
    assert {one["id"], two["id"]} <= set(events(fake))


@pytest.mark.parametrize(
    ("knob", "message"), [("stale_timestamp", "tolerance zone"), ("bad_signature", "No signatures")]
)
def test_a_spoiled_signature_is_refused_by_the_sdk_until_the_next_try(
    fake: FakeServer, receiver: Receiver, effect: str, knob: str, message: str
) -> None:
    receiver.answers = 400
    register(fake, receiver, enabled_events=["payment_intent.succeeded"], **{knob: 1})
    charge(fake, effect)
    (post,) = receiver.wait(1)
    with pytest.raises(stripe.SignatureVerificationError, match=message):
        stripe.Webhook.construct_event(post.body, post.signature, SECRET)
    settled(fake)
    fake.advance(hours=1)
    post = receiver.wait(2)[-1]
    assert stripe.Webhook.construct_event(post.body, post.signature, SECRET).type == "payment_intent.succeeded"


def test_while_a_secret_is_rolled_each_delivery_is_signed_with_both(
    fake: FakeServer, receiver: Receiver, effect: str
) -> None:
    endpoint = register(fake, receiver)
    fake.admin("webhooks", {"id": endpoint, "two_secrets": "whsec_next"})
    charge(fake, effect)
    (post, *_) = receiver.wait(1)
    assert post.signature.count("v1=") == 2
    for secret in (SECRET, "whsec_next"):
        stripe.Webhook.construct_event(post.body, post.signature, secret)


def test_a_removed_endpoint_gets_nothing_more(fake: FakeServer, receiver: Receiver, effect: str) -> None:
    endpoint = register(fake, receiver, delay=HOUR)
    charge(fake, effect)
    wait_until(lambda: deliveries(fake), "what is owed")
    assert fake.admin(f"webhooks?id={endpoint}", method="DELETE") == {"removed": 1}
    assert fake.admin("webhooks")["endpoints"] == []
    fake.advance(hours=2)
    assert {row["state"] for row in deliveries(fake)} == {"dropped"}
    assert receiver.posts == []


@pytest.mark.parametrize(
    "wrong", [{"url": "http://shop.example"}, {"colour": 1}, {"duplicate": 0}, {"id": "we_nobody"}]
)
def test_a_wrong_endpoint_is_refused(fake: FakeServer, receiver: Receiver, wrong: dict[str, Any]) -> None:
    import urllib.error

    with pytest.raises(urllib.error.HTTPError, match="422"):
        fake.admin("webhooks", {"url": receiver.url, **wrong})
