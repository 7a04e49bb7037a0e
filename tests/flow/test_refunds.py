"""Refunds, captures and cancels in real processes: each in its order, each at most once at the provider's ledger."""

from __future__ import annotations

import base64
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.store.database import engine
from tasks import charge, task_of
from tests.flow.system import System
from tests.flow.wires import ValkeyWire, body, task

GOLDEN = Path(__file__).parent / "golden" / "upon_a_charge"
PAY = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": "pm_card_visa"}
KINDS = ("refund", "capture", "cancel")
_keys = count(1)


def held(system: System, **more: Any) -> str:
    """A charge whose money the provider holds."""
    result = charge.apply_async(
        kwargs={**PAY, "capture_method": "manual", **more}, dedupe_key=f"held:{next(_keys)}:charge"
    )
    system.reaches(result.id, "awaiting")
    return result.id


def upon(charge_id: str, kind: str, amount: int = 4200, *, session: Session | None = None) -> str:
    """Accept what acts upon the charge; its effect id."""
    request = {"charge": charge_id, **({} if kind == "cancel" else {"amount": amount, "currency": "eur"})}
    result = task_of(kind).apply_async(kwargs=request, dedupe_key=f"{kind}:{next(_keys)}", session=session)
    return result.id


def moved(system: System, effect_id: str) -> list[tuple[str, int]]:
    """What the provider's ledger has under this effect's mark."""
    return [
        (row["kind"], row["amount"])
        for row in system.stripe.admin("ledger")["money"]
        if effect_id in (row["metadata"].get("effect_id"), row["metadata"].get("capture_effect_id"))
    ]


def test_a_refund_accepted_with_its_charge_is_sent_when_the_charge_has_succeeded(system: System) -> None:
    with Session(engine()) as session, session.begin():
        paid = charge.apply_async(kwargs=PAY, dedupe_key="both:charge", session=session).id
        refund = upon(paid, "refund", 1200, session=session)
    with system.held("confirm", paid) as barrier:
        system.relay()
        system.worker()
        barrier.reached()
        for _ in range(20):
            system.wire.put("charge", task("refund"), body(effect_ids=[refund]))
        waits = "waits for the effect it concerns"
        system.until(
            lambda: (system.outbox(refund) or {}).get("last_error") == waits, "the refund says what it waits for"
        )
        assert system.facts(refund) == ["accepted"]
        assert system.asked(refund, "refund") == []
    system.settles(paid, refund)
    books = system.oracle.check()
    assert (moved(system, paid), moved(system, refund)) == ([("charge", 4200)], [("refund", 1200)])
    assert (books.effects[refund]["state"], books.effects[refund]["attempt"]) == ("succeeded", 1)


def test_when_the_charge_fails_its_refund_fails_and_nothing_is_sent(system: System) -> None:
    system.relay()
    system.worker()
    declined = system.charge(card="pm_card_visa_chargeDeclined")
    refund = upon(declined, "refund")
    system.settles(declined, refund)
    books = system.oracle.check()
    assert (books.effects[declined]["state"], books.effects[refund]["state"]) == ("failed", "failed")
    assert books.effects[refund]["outcome"]["code"] == "charge_failed"
    assert system.asked(refund, "refund") == []


def test_several_refunds_of_one_charge_are_several_and_no_more_than_the_charge(system: System) -> None:
    system.relay()
    system.worker()
    paid = system.charge()
    parts = [upon(paid, "refund", 1500) for _ in range(3)]
    system.settles(paid, *parts)
    books = system.oracle.check()
    ends = sorted(books.effects[part]["state"] for part in parts)
    assert ends == ["failed", "succeeded", "succeeded"]  # the third would have been more than was paid
    assert sum(amount for part in parts for _, amount in moved(system, part)) == 3000


@pytest.mark.parametrize("amount", [4200, 1000])
def test_a_capture_takes_what_was_held_and_settles_its_charge(system: System, amount: int) -> None:
    system.relay()
    system.worker()
    reserved = held(system, receipt_email="captured@example.test")
    assert moved(system, reserved) == []
    capture = upon(reserved, "capture", amount)
    system.settles(reserved, capture)
    books = system.oracle.check()
    assert moved(system, capture) == [("capture", amount)]
    assert [books.effects[e]["state"] for e in (reserved, capture)] == ["succeeded", "succeeded"]
    assert books.effects[reserved]["outcome"]["amount_received"] == amount


def test_a_cancel_releases_what_was_held_and_its_charge_fails_as_canceled(system: System) -> None:
    system.relay()
    system.worker()
    reserved = held(system)
    cancel = upon(reserved, "cancel")
    refund = upon(reserved, "refund")
    system.settles(reserved, cancel, refund)
    books = system.oracle.check()
    assert [books.effects[e]["state"] for e in (reserved, cancel, refund)] == ["failed", "succeeded", "failed"]
    assert books.effects[reserved]["outcome"]["code"] == "canceled"
    assert moved(system, reserved) == []


def each_kind_on_both_sides() -> list[Any]:
    """Three of six; all of them, and every other call, in `make chaos`."""
    at_once = {("before", "refund"), ("after", "capture"), ("after", "cancel")}
    return [
        pytest.param(when, kind, marks=[] if (when, kind) in at_once else pytest.mark.slow)
        for when in ("before", "after")
        for kind in KINDS
    ]


@pytest.mark.parametrize(("when", "kind"), each_kind_on_both_sides())
def test_w7_w8_a_worker_killed_in_the_middle_leaves_exactly_one(system: System, kind: str, when: str) -> None:
    system.relay()
    first = system.worker()
    if kind == "refund":
        target = system.charge()
        system.reaches(target, "succeeded")
    else:
        target = held(system)
    with system.held(kind, when=when) as barrier:
        effect_id = upon(target, kind, 1200)
        barrier.reached()
        first.kill()
    system.worker()
    system.settles(target, effect_id)
    books = system.oracle.check()
    wanted = {"refund": [("refund", 1200)], "capture": [("capture", 1200)], "cancel": []}[kind]
    assert moved(system, effect_id) == wanted
    assert books.effects[effect_id]["state"] == "succeeded"
    assert books.effects[effect_id]["attempt"] >= 2


def test_a_message_with_another_task_name_carries_out_nothing(system: System) -> None:
    """Whoever can write to the broker cannot cancel what was to be captured, nor give back what was to be paid."""
    worker = system.ready(system.worker())
    paid = system.charge()
    for kind in KINDS:
        system.wire.put("charge", task(kind), body(effect_ids=[paid]))
    system.wire.put("charge", task("charge"), body(effect_ids=[paid]))
    system.reaches(paid, "succeeded")
    books = system.oracle.check()
    assert (moved(system, paid), books.effects[paid]["attempt"]) == ([("charge", 4200)], 1)
    assert worker.code is None


def test_the_bytes_of_old_releases_still_execute(system: System, valkey_wire: ValkeyWire) -> None:
    """The golden messages of each kind, with the ids of effects that exist put in place of theirs; no relay runs."""
    worker = system.worker()
    for kind in KINDS:
        target = charge.apply_async(
            kwargs=PAY if kind == "refund" else {**PAY, "capture_method": "manual"}, dedupe_key=f"golden:{kind}"
        ).id
        system.wire.put("charge", task("charge"), body(effect_ids=[target]))
        system.reaches(target, "succeeded", "awaiting")
        effect_id = upon(target, kind)
        envelope = json.loads((GOLDEN / f"{kind}.json").read_text())
        assert envelope["headers"]["task"] == kind
        args, kwargs, embed = json.loads(base64.b64decode(envelope["body"]))
        assert (args, list(kwargs)) == ([], ["effect_ids"])
        envelope["body"] = base64.b64encode(json.dumps([[], {"effect_ids": [effect_id]}, embed]).encode()).decode()
        valkey_wire.push("charge", json.dumps(envelope).encode())
        system.reaches(effect_id, "succeeded")
    assert not worker.lines("message_dropped")
