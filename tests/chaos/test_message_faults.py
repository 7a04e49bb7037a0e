"""Messages come doubled, shuffled, days late, foreign, malformed, oversized and forged: one line each, and no effect.

Whoever can write to the broker can neither invent a payment, nor change one, nor fire one early, nor stop a worker, nor
see his words in a log. The control lets every message through to Celery; then the same corpus must do harm.

    COUNTERFOIL_TEST_SEED=7 python -m pytest -m slow tests/chaos/test_message_faults.py -k mutants
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos import book
from tests.chaos.messages import corpus
from tests.chaos.messages.corpus import Bad
from tests.chaos.messages.post import send
from tests.flow.program import Program
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers
from tests.flow.waiting import age
from tests.flow.wires import body, task

MUTANTS = int(os.environ.get("COUNTERFOIL_TEST_MUTANTS", "400"))
OVERSIZED_BYTES = 50_000_000
# A worker that looks drops each message within a millisecond or two and says so.
STILL_SECONDS = 10.0
_BLIND = {"PYTHONPATH": str(Path(__file__).parent / "messages" / "blind")}
slow = pytest.mark.slow


def _answers(worker: Program) -> dict[str, int]:
    """How many lines of each kind the worker has written."""
    return {line: len(worker.lines(line)) for line in corpus.LINES}


def _expected(messages: Sequence[Bad]) -> dict[str, int]:
    return {line: sum(bad.line == line for bad in messages) for line in corpus.LINES}


def _nothing_leaked(system: System) -> None:
    for program in system.programs:
        found = [line[:300] for line in program.text().splitlines() if any(trace in line for trace in corpus.TRACES)]
        assert not found, f"{program.name} has repeated what a stranger wrote"
        assert max(map(len, program.text().splitlines()), default=0) < 4_000


def _still_works(system: System, worker: Program) -> None:
    """A genuine charge goes through, and it is the only thing that exists."""
    genuine = system.charge(receipt="genuine@example.test")
    system.settles(genuine)
    books = system.oracle.check()
    assert [row["metadata"]["effect_id"] for row in books.money] == [genuine]
    assert worker.code is None
    assert not [line for line in worker.lines() if line["level"] in ("error", "critical")]


@on_both_brokers
def test_each_message_that_nobody_of_us_wrote_gets_one_line_and_no_effect(system: System) -> None:
    """The corpus by hand; the short profile of what follows."""
    system.relay()
    worker = system.ready(system.worker(concurrency=2))
    strange = corpus.by_hand(system.wire.name)
    send(system.wire, strange)
    wanted = _expected(strange)
    system.until(lambda: sum(_answers(worker).values()) >= len(strange), f"{len(strange)} lines are written")
    assert _answers(worker) == wanted
    _still_works(system, worker)
    _nothing_leaked(system)
    book.record(
        "message faults", "by hand", broker=system.wire.name, points=len(strange), intents=2, fault_foreign=len(strange)
    )


@slow
@on_both_brokers
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_mutants_of_a_message_get_one_line_each_and_no_effect(system: System, pool: str, seed: int) -> None:
    print(
        f"COUNTERFOIL_TEST_SEED={seed} python -m pytest -m slow tests/chaos/test_message_faults.py -k 'mutants and {pool}'"
    )
    system.relay()
    worker = system.ready(system.worker(pool, concurrency=2))
    mutants = corpus.drawn(random.Random(seed), MUTANTS, system.wire.name)
    send(system.wire, mutants)
    system.until(
        lambda: sum(_answers(worker).values()) >= len(mutants) or worker.code is not None, "each has a line", 90
    )
    assert sum(_answers(worker).values()) == len(mutants)
    _still_works(system, worker)
    _nothing_leaked(system)
    book.record(
        "message faults",
        f"mutants {pool}",
        broker=system.wire.name,
        seed=seed,
        points=MUTANTS,
        intents=2,
        fault_malformed=MUTANTS,
    )


@slow
@on_both_brokers
def test_without_the_look_at_messages_the_same_corpus_does_harm(system: System) -> None:
    """The proof can fail: words of a stranger in the log, a dead worker, or one that stands still.

    Which of them comes first is a matter of who is quicker. A request that cannot be begun keeps the place in the pool
    that Celery took for it (`WorkController._process_task` gives one back only to what was revoked): two of them, met
    while both children are free, and the worker takes nothing any more. With the look no header gets so far.
    """
    system.relay()
    worker = system.ready(system.worker("prefork", concurrency=2, **_BLIND))
    worker.expected_to_run = False
    # Last things first: those with an `eta`, which only stop a worker on RabbitMQ, stand in the middle.
    send(system.wire, [bad for bad in reversed(corpus.by_hand(system.wire.name)) if bad.element is None])
    said, silent = -1, age(STILL_SECONDS)

    def harmed() -> bool:
        nonlocal said, silent
        if len(worker.text()) != said:
            said, silent = len(worker.text()), age(STILL_SECONDS)
        stands_still = silent() and not system.wire.idle()
        return stands_still or worker.code is not None or any(trace in worker.text() for trace in corpus.TRACES)

    system.until(harmed, "the worker is dead, stands still or tells what was written to it")


@slow
@on_both_brokers
def test_a_message_of_fifty_megabytes_is_dropped(system: System) -> None:
    system.relay()
    worker = system.ready(system.worker(concurrency=2))
    large = [Bad("large", body=b'[[], {"effect_ids": ["' + b"x" * OVERSIZED_BYTES + b'"]}, null]')]
    send(system.wire, large * 2)
    system.until(lambda: _answers(worker) == _expected(large * 2), "both are dropped", 90)
    _still_works(system, worker)
    book.record("message faults", "oversized", broker=system.wire.name, points=2, intents=2, fault_oversized=2)


@on_both_brokers
def test_a_forged_message_starts_nothing_that_is_not_due_and_not_of_its_kind(system: System) -> None:
    """Ids are right, kinds and times are wrong; silence, since a duplicate looks the same."""
    settled, letter = system.charge(), system.email("forged@example.test")
    later, tenants = system.charge(countdown=86_400), system.charge(countdown=86_400, tenant="another")
    system.relay()
    worker = system.ready(system.worker(concurrency=2))
    system.settles(settled, letter)
    waiting = system.email("waiting@example.test") if not worker.code else ""
    system.settles(waiting)
    open_letter = _letter_of_tomorrow()
    forged = [(name, effect) for name in ("charge", "email", "refund", "capture", "cancel") for effect in
              (settled, letter, later, tenants, open_letter)]  # fmt: skip
    messages = [
        Bad(f"{name} {effect}", "", task(name), body(effect_ids=[effect, effect.upper()])) for name, effect in forged
    ]
    send(system.wire, messages * 3)
    _still_works_beside(system, worker, later, tenants, open_letter)
    for effect in (later, tenants, open_letter):
        assert system.facts(effect) == ["accepted"]
    assert system.charged(settled) == 1
    book.record(
        "message faults",
        "forged",
        broker=system.wire.name,
        points=3 * len(messages),
        intents=7,
        fault_forged=len(messages),
    )


def _letter_of_tomorrow() -> str:
    from tasks import email

    wish = {"to": "tomorrow@example.test", "subject": "Tomorrow", "text": "Not today."}
    return str(email.apply_async(kwargs=wish, dedupe_key="letter:tomorrow", countdown=86_400).id)


def _still_works_beside(system: System, worker: Program, *unfinished: str) -> None:
    """Through the same queue, behind the forged ones."""
    system.settles(*(system.charge() for _ in range(4)))
    system.until(system.wire.idle, "the broker is empty")
    system.oracle.check(unfinished=unfinished)
    assert worker.code is None
    assert not _answers(worker)["message_dropped"]
