"""A paused lane: nothing of it is published, it costs the other lanes nothing, and all of it comes back."""

from __future__ import annotations

import pytest

from service.core.errors import ValidationError
from service.engine import lanes
from service.engine.relay import Relay
from service.settings import Settings
from service.store import lanes as stored
from service.store import outbox
from service.store.database import statement
from tests.store.answers import final, waiting
from tests.store.books import Books, order
from tests.store.script import RecordingPublisher

ME = {"actor": "me@host", "door": "cli"}


def relayed() -> list[str]:
    """By a relay that has just been started: it knows what is paused now."""
    publisher = RecordingPublisher()
    Relay(publisher, Settings(), actor="relay").run_once()
    return publisher.ids


def accepted(books: Books, count: int, lane: str, first: int = 0, **more: object) -> list[str]:
    return books.accept(*(order(f"{lane}:{n}", lane=lane, **more) for n in range(first, first + count)))


def roads(books: Books, ids: list[str]) -> list[str]:
    return [str(books.duty(one)["road"]) for one in ids]  # type: ignore[index]


def test_a_paused_lane_is_not_published_and_the_others_are(books):
    slow, quick = accepted(books, 3, "slow"), accepted(books, 2, "quick")
    lanes.pause("slow", reason="the bank is away", **ME)
    assert relayed() == quick
    assert roads(books, slow) == ["held"] * 3
    assert relayed() == []


def test_what_is_held_does_not_wake_a_relay(books):
    accepted(books, 2, "slow")
    lanes.pause("slow", reason="x", **ME)
    relayed()
    with statement() as connection:
        assert outbox.seconds_until_due(connection) is None


def test_a_resumed_lane_comes_back_fresh_ones_as_fresh_and_each_is_published_once(books):
    ids = accepted(books, 3, "slow")
    [attempt] = books.claim(ids[0])
    books.settle(waiting(attempt))  # delivered before, due again
    books.make_due(ids[0])
    books.run("update outbox set deliveries = 1 where effect_id = %s", ids[0])
    lanes.pause("slow", reason="x", **ME)
    relayed()
    lanes.resume("slow", **ME)
    with statement() as connection:
        assert stored.release(connection) == 3
    assert roads(books, ids) == ["later", "fresh", "fresh"]
    assert sorted(relayed()) == sorted(ids)
    assert [books.duty(one)["deliveries"] for one in ids] == [2, 1, 1], "being held is no delivery"


def test_a_backlog_comes_back_in_batches_without_waiting_for_the_poll(books, monkeypatch):
    monkeypatch.setattr(stored, "HOLD_BATCH", 2)
    accepted(books, 5, "slow")
    lanes.pause("slow", reason="x", **ME)
    relayed()
    lanes.resume("slow", **ME)
    relay = Relay(RecordingPublisher(), Settings(poll=30.0), actor="relay")
    assert relay.run_once().taken == 2
    assert relay._pause() < 1.0


def test_what_is_in_flight_goes_on_when_its_lane_is_paused(books):
    [one] = accepted(books, 1, "slow")
    assert relayed() == [one]
    lanes.pause("slow", reason="x", **ME)
    [attempt] = books.claim(one)
    assert books.settle(final(attempt)) == {one}


def test_lanes_tell_what_they_hold_who_paused_them_and_why(books):
    accepted(books, 2, "slow")
    accepted(books, 1, "quick")
    lanes.pause("slow", reason="INC-42", **ME)
    relayed()
    found = {lane.name: lane for lane in lanes.listed(known=("idle",))}
    assert list(found) == ["idle", "quick", "slow"]
    assert (found["slow"].held, found["slow"].paused_by, found["slow"].pause_reason) == (2, "me@host", "INC-42")
    assert (found["quick"].in_flight, found["quick"].paused_at) == (1, None)
    assert found["slow"].oldest_seconds is not None


def test_pausing_and_resuming_need_sense_and_stand_in_the_operators_log(books):
    with pytest.raises(ValidationError, match="reason"):
        lanes.pause("slow", reason=" ", **ME)
    with pytest.raises(ValidationError, match="not paused"):
        lanes.resume("slow", **ME)
    lanes.pause("slow", reason="x", **ME)
    with pytest.raises(ValidationError, match="paused already"):
        lanes.pause("slow", reason="y", **ME)
    lanes.resume("slow", **ME)
    log = books.rows("select verb, subject, actor, reason from actions order by id")
    assert [(row["verb"], row["subject"], row["reason"]) for row in log] == [
        ("pause", "lane slow", "x"),
        ("resume", "lane slow", None),
    ]
