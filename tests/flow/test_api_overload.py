"""Under more load than it can carry the API sheds at once, keeps answering probes, and loses nothing it has accepted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from service.api.admission import WAITING_MAX
from service.store.database import POOL_OVERFLOW, POOL_SIZE
from tests.flow.doors import Answer, Door, served, wait_until
from tests.server import Server

CROWD = WAITING_MAX + POOL_SIZE + POOL_OVERFLOW + 60
"""More than can be at work and wait together."""
AT_ONCE_SECONDS = 2.0
"""Far less than the lock time-out that those who wait would meet, on any machine."""


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


def test_a_burst_beyond_what_can_wait_is_sent_away_at_once_and_the_others_are_served(door: Door) -> None:
    with psycopg.connect(door.database_url) as holder, ThreadPoolExecutor(CROWD) as crowd:
        # A database that has become slow: every accept waits for this lock.
        holder.execute("lock table effects in access exclusive mode")
        burst = [crowd.submit(timed, door, f"burst:{n}") for n in range(CROWD)]
        wait_until(lambda: sum(b.done() for b in burst) >= 60)
        assert door.call("GET", "/livez").status == 200
        assert door.call("GET", "/readyz").status == 200
        holder.rollback()
        answers = [b.result(60) for b in burst]

    shed = [(answer, seconds) for answer, seconds in answers if answer.status == 503]
    assert set(Counter(answer.status for answer, _ in answers)) <= {202, 503}
    assert len(shed) >= 60
    overloaded = [(answer, seconds) for answer, seconds in shed if answer.json["code"] == "overloaded"]
    assert len(overloaded) >= 60
    for answer, _ in overloaded:
        assert int(answer.headers["retry-after"]) > 0
        assert (answer.json["retryable"], answer.json["safe_new_key"]) == (True, True)
    # Whoever was told that nothing was done finds nothing done.
    accepted = {answer.json["id"] for answer, _ in answers if answer.status == 202}
    with psycopg.connect(door.database_url) as db:
        [(count,)] = db.execute("select count(*) from effects").fetchall()
        assert count >= len(accepted)
        assert count <= CROWD - len(overloaded)


def test_whoever_was_sent_away_is_served_a_moment_later(door: Door) -> None:
    wait_until(lambda: door.charge("after the burst".replace(" ", "-")).status == 202)


def timed(door: Door, key: str) -> tuple[Answer, float]:
    began = time.monotonic()
    return door.charge(key), time.monotonic() - began
