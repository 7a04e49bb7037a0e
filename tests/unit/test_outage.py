"""An outage is waited out with one line when it begins and one when it is over, however many wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from service.core.errors import DependencyUnavailable
from service.engine.outage import patiently


def failing(times: int):
    left = [times]
    lock = threading.Lock()

    def work() -> str:
        with lock:
            left[0] -= 1
            if left[0] >= 0:
                raise DependencyUnavailable("away")
        return "done"

    return work


def no_sleep(_seconds: float) -> None:
    return None


def events(logs, event):
    return [line for line in logs if line["event"] == event]


def test_work_that_succeeds_says_nothing():
    with structlog.testing.capture_logs() as logs:
        assert patiently(failing(0), what="quiet", enough=lambda: False, sleep=no_sleep) == "done"
    assert logs == []


def test_an_outage_gives_one_line_at_its_beginning_and_one_at_its_end():
    with structlog.testing.capture_logs() as logs:
        assert patiently(failing(30), what="one", enough=lambda: False, sleep=no_sleep) == "done"
    assert [line["event"] for line in logs] == ["outage", "outage_over"]
    assert {line["dependency"] for line in logs} == {"one"}


def test_threads_that_wait_together_still_give_one_line_each_way():
    work = failing(200)
    with structlog.testing.capture_logs() as logs, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(patiently, work, what="many", enough=lambda: False, sleep=no_sleep) for _ in range(8)]
        assert {f.result(20) for f in waiting} == {"done"}
    assert events(logs, "outage")
    assert len(events(logs, "outage")) == len(events(logs, "outage_over")) <= 8


def test_waits_are_short_so_that_a_server_that_is_back_is_used_at_once():
    waits = []
    patiently(failing(50), what="short", enough=lambda: False, sleep=waits.append)
    assert len(waits) == 50
    assert max(waits) <= 3.0


def test_told_to_stop_it_raises_the_last_error():
    tries = []

    def work() -> None:
        tries.append(1)
        raise DependencyUnavailable("still away")

    with pytest.raises(DependencyUnavailable, match="still away"):
        patiently(work, what="stopped", enough=lambda: len(tries) >= 3, sleep=no_sleep)
    assert len(tries) == 3
    patiently(lambda: None, what="stopped", enough=lambda: True, sleep=no_sleep)


def test_a_bug_is_not_waited_out():
    def bug() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        patiently(bug, what="bug", enough=lambda: False, sleep=no_sleep)
