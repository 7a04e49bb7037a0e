"""Bad input in every door: a clear error or one log line; no bug, no effect, and nothing planted is repeated anywhere.

The short profile runs in `make test`; `python -m tests.badinput` plays a million and says what it did.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.badinput import commands, http_requests, messages, python_calls
from tests.badinput.overheard import overheard, spelled_out
from tests.badinput.tally import Tally, leak
from tests.chaos.book import record
from tests.flow.program import Program
from tests.flow.system import System

COUNT = int(os.environ.get("COUNTERFOIL_TEST_BAD_INPUTS", "4000"))
TABLES = "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
pytestmark = pytest.mark.timeout(3600 if COUNT > 10_000 else 180)


def share(door: str) -> int:
    """How many of all inputs come through a door: by how quickly it answers, and how many are behind it."""
    return max(20, COUNT * {"python": 50, "http": 30, "messages": 16, "commands": 4}[door] // 100)


def rows(system: System) -> dict[str, int]:
    names = [row["relname"] for row in system.sql(TABLES)]
    found = {name: int(system.sql(f"select count(*) as n from {name}")[0]["n"]) for name in names}
    # A plan that found nothing is kept as any other, until it is pruned: somebody has looked.
    found.pop("incarnations")  # the first claim of all begins the first life
    found["operations"] = int(system.sql("select count(*) as n from operations where total > 0")[0]["n"])
    return found


def test_bad_input_through_every_door_does_nothing_and_is_told(system: System, seed: int) -> None:
    draw = random.Random(seed)
    api = system.start("api", ["service", "api", "--port", "0"], STRIPE_WEBHOOK_SECRET="whsec_planted")
    system.until(lambda: api.lines("listening"), "the API listens")
    host, _, port = api.lines("listening")[0]["url"].removeprefix("http://").partition(":")
    worker = system.ready(system.worker(concurrency=2))
    before = rows(system)
    with overheard(system.wire.url) as broker_bytes:
        tallies = [
            timed(lambda: python_calls.play(share("python"), draw)),
            timed(lambda: http_requests.play(share("http"), draw, host, int(port))),
            timed(lambda: commands.play(share("commands"), draw, system.settings)),
        ]
    tallies.append(timed(lambda: messages.play(share("messages"), draw, system.wire, worker)))
    findings = [finding for tally in tallies for finding in tally.findings]
    assert findings == [], "\n".join([f"COUNTERFOIL_TEST_SEED={seed}", *findings])
    assert rows(system) == before, "an input that was refused has been written down"
    assert (api.code, worker.code) == (None, None)
    nothing_planted_is_repeated(system)
    assert not leak(spelled_out(broker_bytes))
    still_works(system, api, worker)
    tell(tallies, seed)


def timed(work: Any) -> Tally:
    begun = monotonic()
    tally: Tally = work()
    print(f"\r{tally.door}: {tally.inputs:,} inputs in {monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return tally


def nothing_planted_is_repeated(system: System) -> None:
    for program in system.programs:
        for line in program.text().splitlines():
            assert not leak(line), f"{program.name}: {line[:300]}"
    for name in rows(system):
        for row in system.sql(f"select t::text as said from {name} t"):
            assert not leak(str(row["said"])), name


def still_works(system: System, api: Program, worker: Program) -> None:
    """A genuine charge behind them all, and it is the only one."""
    system.relay()
    with overheard(system.wire.url) as broker_bytes:
        genuine = system.charge(receipt="genuine@example.test")
        system.settles(genuine)
    said = spelled_out(broker_bytes)
    assert genuine in said, "effect ids, and nothing else"
    for private in ("genuine@example.test", "pm_card_visa", "cus_1"):
        assert private not in said
    assert [row["metadata"]["effect_id"] for row in system.oracle.check().money] == [genuine]
    for program in (api, worker):
        assert not [line for line in program.lines() if line["level"] in ("error", "critical")], program.name


def tell(tallies: list[Tally], seed: int) -> None:
    for tally in tallies:
        record("bad input", tally.door, seed=seed, points=tally.inputs, **{f"fault_{tally.door}": tally.inputs})
    if place := os.environ.get("COUNTERFOIL_TEST_BAD_INPUT_REPORT"):
        Path(place).write_text(json.dumps({"seed": seed, "doors": [tally.document() for tally in tallies]}))
