"""Under more load than it can carry the API sheds at once, keeps answering probes, and loses nothing it has accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx2
import psycopg
import pytest
import uvicorn

from service import settings
from service.api.app import create_app
from service.api.health import PROBES_MAX
from service.api.server import address_of, listen
from service.store.database import POOL_OVERFLOW, POOL_SIZE
from tests.flow.doors import CHARGE, wait_until

WAITING = 5
CROWD = POOL_SIZE + POOL_OVERFLOW - PROBES_MAX + WAITING + 10
"""More than can be at work and wait together."""


@contextmanager
def served() -> Iterator[str]:
    """The API over a real socket, with room for a few to wait: the full size would measure the machine."""
    listener = listen("127.0.0.1", 0)
    app = create_app(settings.load(), waiting_max=WAITING)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(40)


def charge(http: httpx2.Client, key: str) -> dict[str, Any]:
    answer = http.post("/v1/charges", json=CHARGE, headers={"Idempotency-Key": key})
    return {**answer.json(), "status": answer.status_code, "retry_after": answer.headers.get("Retry-After")}


def insist(http: httpx2.Client, key: str, sent_away: list[str]) -> str:
    """What a caller does until it is accepted: the same again, and after `overloaded`, which allows it, another key."""
    tries = count(1)
    name = key
    while True:
        answer = charge(http, name)
        if answer["status"] == 202:
            return str(answer["id"])
        assert answer["retryable"]
        if answer["code"] == "overloaded":
            assert int(answer["retry_after"]) > 0
            assert answer["safe_new_key"]
            sent_away.append(name)
            name = f"{key}:{next(tries)}"
        else:
            assert answer["code"] == "dependency_unavailable"
        time.sleep(0.1)


def test_beyond_what_can_wait_callers_are_sent_away_at_once_and_probes_and_accepted_effects_are_not_touched(
    database: str,
) -> None:
    sent_away: list[str] = []
    limits = httpx2.Limits(max_connections=None)
    with (
        served() as url,
        httpx2.Client(base_url=url, timeout=60, limits=limits, trust_env=False) as http,
        ThreadPoolExecutor(CROWD) as crowd,
    ):
        with psycopg.connect(database) as holder:
            # A database that has become slow: whoever writes waits for this lock, and gives up after a while.
            holder.execute("lock table effects in exclusive mode")
            callers = [crowd.submit(insist, http, f"caller-{n}", sent_away) for n in range(CROWD)]
            wait_until(lambda: len(sent_away) >= 5, seconds=90)
            assert http.get("/livez").status_code == 200
            assert http.get("/readyz").status_code == 200
            holder.rollback()
        accepted = [caller.result(90) for caller in callers]

    assert len(set(accepted)) == CROWD
    with psycopg.connect(database) as db:
        [(written,)] = db.execute("select count(*) from effects").fetchall()
        assert written == CROWD  # one for each caller, however often it came back under another key
        assert db.execute("select 1 from effects where dedupe_key = any(%s)", [sent_away]).fetchall() == []


@pytest.mark.parametrize("path", ["/v1/effects", "/v1/outbox/stats"])
def test_reading_goes_on_when_there_is_room(database: str, path: str) -> None:
    assert database
    with served() as url, httpx2.Client(base_url=url, timeout=60, trust_env=False) as http:
        assert http.get(path).status_code == 200
