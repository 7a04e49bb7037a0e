"""Messages of every release are understood by every other one, both ways, byte for byte as they stood in the broker.

A release adds its files with `COUNTERFOIL_TEST_CAPTURE=<version>` (messages/capture.py); what is kept is never edited.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import book
from tests.chaos.messages.capture import GOLDEN, capture, named, replay, write
from tests.chaos.old_code import Old, old_tree
from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers

__all__ = ["old_tree"]
slow = pytest.mark.slow
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())
WAYS = [("charge", "charge"), ("charge", "email"), ("email", "email"), ("email", "charge")]
"""Kind and lane: each kind in the lane of its name and in another one."""
_CAPTURING = os.environ.get("COUNTERFOIL_TEST_CAPTURE")


def _accepted(system: System, kind: str, number: int, **options: Any) -> list[str]:
    from tasks import charge, email

    wishes: dict[str, dict[str, Any]] = {
        "charge": {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"},
        "email": {"to": "golden@example.test", "subject": "Golden", "text": "A letter."},
    }
    task = {"charge": charge, "email": email}[kind]
    key = f"golden:{kind}:{len(system.sql('select 1 from effects'))}"
    calls = [{"kwargs": wishes[kind], "dedupe_key": f"{key}:{n}", **options} for n in range(number)]
    return [result.id for result in task.apply_many(calls)]


@on_both_brokers
@pytest.mark.parametrize("version", VERSIONS)
def test_the_bytes_of_a_released_version_start_the_effects_they_name(system: System, version: str) -> None:
    """No relay runs: what happens, happens because of the old message."""
    files = sorted((GOLDEN / version).glob(f"{system.wire.name}-*.json"))
    assert len(files) == len(WAYS)
    worker = system.ready(system.worker(concurrency=2))
    for file in files:
        found = json.loads(file.read_text())
        kind = file.stem.split("-")[1]
        ids = _accepted(system, kind, len(named(found)))
        replay(system.wire, found, ids)
        system.settles(*ids)
        assert {system.state(effect_id) for effect_id in ids} == {"succeeded"}, file.name
    system.oracle.check()
    assert not worker.lines("message_dropped")
    book.record(
        "message faults", f"golden {version}", broker=system.wire.name, points=len(files), fault_old_version=len(files)
    )


@slow
@on_both_brokers
def test_todays_messages_start_the_effects_they_name_under_the_code_of_0_1_0(system: System, old_tree: Path) -> None:
    """A rolling deploy: the relay is of today, the worker not yet. What the old one does not know waits for a new one."""
    system.relay()
    worker = Old(system, old_tree).worker()
    ids = [effect_id for kind, lane in WAYS for effect_id in _accepted(system, kind, 3, queue=lane)]
    system.settles(*ids)
    assert {system.state(effect_id) for effect_id in ids} == {"succeeded"}
    assert not worker.lines("message_dropped")
    refund = _refund(ids[0])
    system.until(lambda: worker.lines("message_dropped"), "the old worker says that it does not know refunds")
    assert {line["reason"] for line in worker.lines("message_dropped")} == {"unknown task"}
    assert system.state(refund) == "pending"
    system.worker(concurrency=2)
    worker.stop()
    system.settles(refund)
    system.oracle.check()
    book.record(
        "message faults",
        "today under 0.1.0",
        broker=system.wire.name,
        points=len(WAYS),
        intents=len(ids) + 1,
        fault_new_version=len(WAYS),
    )


def _refund(charge: str) -> str:
    from tasks import refund

    wish = {"charge": charge, "amount": 100, "currency": "eur"}
    return str(refund.apply_async(kwargs=wish, dedupe_key=f"golden:{charge}:refund").id)


@slow
@on_both_brokers
@pytest.mark.skipif(_CAPTURING is None, reason="writes the messages of COUNTERFOIL_TEST_CAPTURE=<version>")
def test_capture_the_messages_of_a_release(system: System, request: pytest.FixtureRequest) -> None:
    """0.1.0 out of the history, any later version out of this tree at its release."""
    assert _CAPTURING
    if _CAPTURING == "0.1.0":
        Old(system, request.getfixturevalue("old_tree")).relay()
    else:
        system.relay()
    for kind, lane in WAYS:
        _accepted(system, kind, 2, queue=lane)
        system.until(lambda lane=lane: system.wire.waiting(lane), "the relay has published")
        found = capture(system.wire, lane)
        assert found
        print(write(_CAPTURING, kind, found))
