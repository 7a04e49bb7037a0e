"""Lists of effects: each filter finds what it says, no cursor can be made up or carried elsewhere, nothing scans for long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest

from tests.flow.doors import EMAIL, Door, served
from tests.server import Server

MADE = ("order:1:charge", "order:2:charge", "order:22:charge", "other:3:charge")


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


@pytest.fixture(scope="module")
def made(door: Door) -> dict[str, str]:
    """Four charges, one settled; a refund of the first and a letter."""
    ids = {key: str(door.charge(key).json["id"]) for key in MADE}
    refund = {"charge": ids["order:1:charge"], "amount": 1, "currency": "eur"}
    ids["refund"] = door.call("POST", "/v1/refunds", refund, headers={"Idempotency-Key": "r-1"}).json["id"]
    ids["letter"] = door.call("POST", "/v1/emails", EMAIL, headers={"Idempotency-Key": "order:1:letter"}).json["id"]
    door.settle(ids["order:2:charge"])
    return ids


def ask(door: Door, **filters: Any) -> list[str]:
    return [effect["id"] for effect in whole(door, **filters)]


def whole(door: Door, **filters: Any) -> list[dict[str, Any]]:
    answer = door.call("GET", f"/v1/effects?{urlencode(filters)}")
    assert answer.status == 200, answer.json
    return list(answer.json["effects"])


def test_each_filter_finds_what_it_says(door: Door, made: dict[str, str]) -> None:
    one, two, three, four = (made[key] for key in MADE)
    assert ask(door, kind="charge") == [four, three, two, one]
    assert ask(door, state="succeeded") == [two]
    assert ask(door, state="pending", kind="charge") == [four, three, one]
    assert ask(door, key="order:1:charge") == [one]
    assert sorted(ask(door, key_prefix="order:2", kind="charge")) == [two, three]
    assert ask(door, key_prefix="order:2:", kind="charge") == [two]
    assert sorted(ask(door, key_prefix="order:")) == [one, two, three, made["letter"]]
    assert ask(door, key_prefix="order:", state="succeeded") == [two]
    assert ask(door, concerns=one) == [made["refund"]]
    assert ask(door, caused_by=one) == []
    [settled] = whole(door, state="succeeded")
    assert ask(door, ref=settled["provider_ref"]) == [two]
    assert ask(door, ref="pi_unheard_of") == []


def test_times_are_of_the_acceptance(door: Door, made: dict[str, str]) -> None:
    [found] = whole(door, key="order:2:charge")
    at = found["created_at"]
    later = ask(door, created_since=at, kind="charge")
    assert later == [made[key] for key in reversed(MADE[1:])]
    assert ask(door, created_until=at, kind="charge") == [made["order:1:charge"]]
    assert ask(door, created_since="2190-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    "filters",
    [
        {"kind": "charge"},
        {"key_prefix": "order:"},
        {"state": "pending"},
        {"created_since": "2020-01-01T00:00:00+02:00"},
    ],
)
@pytest.mark.usefixtures("made")
def test_pages_are_followed_by_their_links_to_the_end(door: Door, filters: dict[str, str]) -> None:
    expected = ask(door, **filters)
    assert len(expected) > 2
    seen: list[str] = []
    path: str | None = f"/v1/effects?{urlencode({**filters, 'limit': 1})}"
    while path:
        answer = door.call("GET", path)
        seen += [effect["id"] for effect in answer.json["effects"]]
        path = answer.json.get("next")
        assert (f'<{path}>; rel="next"' if path else None) == answer.headers.get("link")
    assert seen == expected


def test_a_cursor_is_opaque_and_belongs_to_its_list(door: Door, made: dict[str, str]) -> None:
    following = door.call("GET", "/v1/effects?kind=charge&limit=1").json["next"]
    cursor = following.partition("cursor=")[2].partition("&")[0]
    assert made["order:2:charge"] not in cursor
    changed = ("A" if cursor[5] != "A" else "B").join((cursor[:5], cursor[6:]))
    for wrong in (
        f"kind=charge&cursor={changed}",
        f"kind=charge&cursor={cursor[:-3]}",
        f"kind=email&cursor={cursor}",
        f"cursor={cursor}",
        f"kind=charge&state=pending&cursor={cursor}",
        "kind=charge&cursor=" + "A" * 600,
        "kind=charge&cursor=%C3%A9",
    ):
        answer = door.call("GET", f"/v1/effects?{wrong}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_cursor"), wrong
    assert door.call("GET", f"/v1/effects?kind=charge&limit=2&cursor={cursor}").status == 200


def test_an_unknown_filter_is_refused_instead_of_listing_everything(door: Door) -> None:
    for wrong in ("stat=parked", "state=parked&tenant=other", "kind=charge&kind=email", "offset=3"):
        answer = door.call("GET", f"/v1/effects?{wrong}")
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), wrong


@pytest.mark.parametrize(
    "moment", ["2026-12-01", "2026-12-01T00:00:00", "yesterday", "1700000000", "2026-02-30T00:00:00Z"]
)
def test_a_moment_without_its_zone_or_day_is_refused(door: Door, moment: str) -> None:
    answer = door.call("GET", f"/v1/effects?created_since={quote(moment)}")
    assert (answer.status, answer.json["field"]) == (400, "created_since")


def test_events_tell_an_effects_story_in_order(door: Door, made: dict[str, str]) -> None:
    answer = door.call("GET", f"/v1/effects/{made['order:2:charge']}/events")
    assert [event["fact"] for event in answer.json["events"]] == ["accepted", "claimed", "succeeded"]
    assert answer.json["more"] is False
    assert door.call("GET", "/v1/effects/nonsense/events").json["code"] == "effect_not_found"


@pytest.mark.usefixtures("made")
def test_a_list_that_would_read_the_whole_ledger_gives_up_and_says_how_to_narrow_it(door: Door) -> None:
    """As slow as a ledger of millions: somebody holds the table's lock for longer than a list may take."""
    with psycopg.connect(door.database_url) as holder:
        holder.execute("lock table effects in access exclusive mode")
        answer = door.call("GET", "/v1/effects?state=failed")
        assert (answer.status, answer.json["code"], answer.json["retryable"]) == (422, "list_too_wide", False)
        assert "created_since" in answer.json["detail"]
        holder.rollback()
    assert door.call("GET", "/v1/effects?state=failed").status == 200
