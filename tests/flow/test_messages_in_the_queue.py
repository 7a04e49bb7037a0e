"""Whoever can write to the broker can neither invent a payment, nor change one, nor fire one early, nor stop a worker."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

import pytest

from tests.flow.system import System
from tests.flow.test_pools import on_both_brokers
from tests.flow.wires import ValkeyWire, body, task

GOLDEN = Path(__file__).parent / "golden"
_STRANGER = "4242424242424242"  # in every foreign message; must not appear in a log

_WRONG_BODIES = {
    "money_by_name": body(amount=4200, currency="eur", payment_method="pm_card_visa", description=_STRANGER),
    "money_beside_an_id": body(effect_id=str(uuid.uuid4()), amount=4200, description=_STRANGER),
    "no_ids": body(effect_ids=[]),
    "ids_of_the_wrong_type": body(effect_ids=[1, None, {"id": _STRANGER}]),
    "sql_for_an_id": body(effect_ids=["'; drop table outbox; --"]),
    "a_million_ids": body(effect_ids=["x"] * 100_000),
    "not_a_triple": json.dumps({"effect_ids": [_STRANGER]}).encode(),
    "not_json": b"\x80\x04\x95 pickle " + _STRANGER.encode(),
    "callbacks": json.dumps([[], {"effect_ids": []}, {"callbacks": [{"task": "charge"}]}]).encode(),
}
_GARBAGE = [
    b"",
    b"garbage",
    b"\xff\x00\xfe",
    b"[]",
    b"null",
    b"{}",
    b'{"body": 1}',
    b'{"properties": {"delivery_tag": 7}}',
]


@on_both_brokers
def test_a_malformed_or_foreign_message_is_dropped_with_a_line_and_nothing_is_executed(system: System) -> None:
    system.relay()
    worker = system.worker(concurrency=2)
    system.ready(worker)
    for foreign in _WRONG_BODIES.values():
        system.wire.put("charge", task("charge"), foreign)
    system.wire.put("charge", task("os.system"), body(_STRANGER))
    system.wire.put("charge", {"who": "a stranger"}, body(effect_ids=[str(uuid.uuid4())]))
    system.wire.put("email", task("charge", retries="many"), body(effect_ids=[str(uuid.uuid4())]))
    system.wire.put("charge", task("charge"), body(effect_ids=[str(uuid.uuid4())]))  # well-formed, and no such effect
    if isinstance(system.wire, ValkeyWire):
        system.wire.push("charge", *_GARBAGE)
    dropped = len(_WRONG_BODIES) + 3 + (len(_GARBAGE) if isinstance(system.wire, ValkeyWire) else 0)
    system.until(lambda: len(worker.lines("message_dropped")) >= dropped, f"{dropped} messages were dropped")
    assert len(worker.lines("message_dropped")) == dropped
    assert _STRANGER not in worker.text()
    genuine = system.charge()
    system.settles(genuine)
    books = system.oracle.check()
    assert list(books.effects) == [genuine]
    assert [row["metadata"]["effect_id"] for row in books.money] == [genuine]
    assert worker.code is None


@pytest.mark.parametrize("shape", ["one_id", "positional", "a_list"])
def test_messages_of_every_format_that_was_ever_written_still_execute(system: System, shape: str) -> None:
    """No relay runs: what happens, happens because of the old message."""
    effect_id = system.charge(receipt="old@example.test") if shape == "a_list" else system.charge()
    old = {"one_id": body(effect_id=effect_id), "positional": body(effect_id), "a_list": body(effect_ids=[effect_id])}
    system.wire.put("charge", task("charge"), old[shape])
    system.worker(concurrency=2)
    system.reaches(effect_id, "succeeded")
    assert system.charged(effect_id) == 1


def test_the_bytes_of_old_releases_still_execute(system: System, valkey_wire: ValkeyWire) -> None:
    """The files of the golden corpus, with the ids of effects that exist put in place of theirs."""
    worker = system.worker(concurrency=2)
    for file in sorted(GOLDEN.glob("*.json")):
        effect_id = system.charge()
        envelope = json.loads(file.read_text())
        args, kwargs, embed = json.loads(base64.b64decode(envelope["body"]))
        args = [effect_id] if args else []
        kwargs = {name: effect_id if isinstance(value, str) else [effect_id] for name, value in kwargs.items()}
        envelope["body"] = base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode()
        valkey_wire.push("charge", json.dumps(envelope).encode())
        system.reaches(effect_id, "succeeded")
        assert system.charged(effect_id) == 1, file.name
    assert not worker.lines("message_dropped")


def test_an_effect_is_not_executed_before_its_time_whatever_message_asks_for_it(system: System) -> None:
    soon, later = system.charge(countdown=2), system.charge(countdown=3600)
    due = system.effect(soon)["not_before"].timestamp()
    worker = system.worker(concurrency=2)
    for _ in range(3):
        system.wire.put("charge", task("charge", eta=None), body(effect_ids=[soon, later]))
    system.relay()
    system.settles(system.charge(), soon)
    [first] = system.asked(soon, "create")
    assert first["at"] >= due
    for _ in range(3):
        system.wire.put("charge", task("charge"), body(effect_ids=[later]))
    system.settles(system.charge())  # through the same queue, behind the forged ones
    assert system.facts(later) == ["accepted"]
    system.oracle.check(unfinished=(later,))
    assert worker.code is None
