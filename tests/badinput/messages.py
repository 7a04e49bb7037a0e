"""The broker's door: messages nobody of us wrote, by the thousand; each is answered by one log line and by nothing else."""

from __future__ import annotations

import random

from tests.badinput.tally import Tally
from tests.chaos.messages import corpus
from tests.chaos.messages.post import send
from tests.flow.program import Program
from tests.flow.waiting import until
from tests.flow.wires import Wire

AT_ONCE = 2_000


def play(count: int, draw: random.Random, wire: Wire, worker: Program) -> Tally:
    tally = Tally("messages")
    answered = _answered(worker)
    while tally.inputs < count and worker.code is None:
        batch = corpus.drawn(draw, min(AT_ONCE, count - tally.inputs), wire.name)
        send(wire, batch)
        tally.played("a message nobody of us wrote", len(batch))
        wanted = answered + tally.inputs
        until(
            lambda wanted=wanted: _answered(worker) >= wanted or worker.code is not None,
            "each message has its line",
            120,
        )
    lines = _answered(worker) - answered
    if worker.code is not None:
        tally.wrong("a message", f"the worker has ended with {worker.code}")
    if lines != tally.inputs:
        tally.wrong("a message", f"{lines} lines for {tally.inputs} messages")
    if found := [trace for trace in corpus.TRACES if trace in worker.text()]:
        tally.wrong("a message", f"the worker repeats {found}")
    tally.answers["one log line"] += lines
    return tally


def _answered(worker: Program) -> int:
    text = worker.text()
    return sum(text.count(f'"event": "{line}') + text.count(f'"event":"{line}') for line in corpus.LINES)
