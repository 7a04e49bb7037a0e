"""The combiner: one piece of work for everybody who waits, nobody stranded, each with their own answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from service.engine.combine import BATCH_MAX, Combiner

JOIN_SECONDS = 20


class Gate:
    """Work that holds its first batch until told, so that a queue can build up behind it."""

    def __init__(self, answer=lambda item: item * 10):
        self.batches = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self._answer = answer

    def __call__(self, items):
        self.batches.append(list(items))
        if len(self.batches) == 1:
            self.entered.set()
            assert self.open.wait(JOIN_SECONDS)
        return [self._answer(item) for item in items]


def queue_behind(combiner, gate, items):
    """Start one leader with item 0, and everybody else once it is inside; returns the pool and the futures."""
    pool = ThreadPoolExecutor(len(items) + 1)
    futures = [pool.submit(combiner, 0)]
    assert gate.entered.wait(JOIN_SECONDS)
    for waiting, item in enumerate(items, start=1):
        futures.append(pool.submit(combiner, item))
        while len(combiner._waiting) < waiting:  # each in its turn, so that the order is known
            threading.Event().wait(0.0005)
    return pool, futures


def test_alone_it_works_at_once_in_the_callers_own_thread():
    seen = []
    combiner = Combiner(lambda items: (seen.append(threading.get_ident()), [i + 1 for i in items])[1])
    assert combiner(1) == 2
    assert seen == [threading.get_ident()]


def test_whoever_waits_shares_one_batch_in_the_order_of_coming():
    gate = Gate()
    pool, futures = queue_behind(Combiner(gate), gate, range(1, 21))
    with pool:
        gate.open.set()
        assert [f.result(JOIN_SECONDS) for f in futures] == [i * 10 for i in range(21)]
    assert gate.batches == [[0], list(range(1, 21))]


def test_a_batch_has_a_limit_and_the_rest_follows():
    gate = Gate()
    pool, futures = queue_behind(Combiner(gate), gate, range(1, BATCH_MAX + 11))
    with pool:
        gate.open.set()
        assert [f.result(JOIN_SECONDS) for f in futures] == [i * 10 for i in range(BATCH_MAX + 11)]
    assert [len(batch) for batch in gate.batches] == [1, BATCH_MAX, 10]


def test_many_threads_each_get_their_own_answer(seed):
    random = Random(seed)
    busy = threading.Lock()

    def work(items):
        assert busy.acquire(blocking=False), "two batches at once"
        try:
            return [item * 3 for item in items]
        finally:
            busy.release()

    combiner = Combiner(work)
    items = [random.randrange(10**9) for _ in range(2000)]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(combiner, items)) == [item * 3 for item in items]


def test_a_batch_that_raises_tells_all_of_that_batch_and_spares_the_next():
    gate = Gate(lambda item: 1 // item if item != 0 else 0)

    def work(items):
        answers = gate(items)
        if 7 in items:
            raise ValueError("seven")
        return answers

    combiner = Combiner(work)
    pool, futures = queue_behind(combiner, gate, range(1, 11))
    with pool:
        gate.open.set()
        assert futures[0].result(JOIN_SECONDS) == 0
        for future in futures[1:]:
            with pytest.raises(ValueError, match="seven"):
                future.result(JOIN_SECONDS)
    assert combiner(1) == 1


def test_a_wrong_number_of_answers_is_loud_and_leaves_nobody_waiting():
    combiner = Combiner(lambda _: [])
    with pytest.raises(ValueError, match="shorter"):
        combiner(1)


def test_a_leader_that_is_killed_strands_nobody():
    class Killed(BaseException):
        pass

    gate = Gate()

    def work(items):
        answers = gate(items)
        if 0 in items:
            raise Killed
        return answers

    combiner = Combiner(work)
    pool, futures = queue_behind(combiner, gate, range(1, 6))
    with pool:
        gate.open.set()
        for future in futures:
            with pytest.raises(Killed):
                future.result(JOIN_SECONDS)
    assert combiner(4) == 40
