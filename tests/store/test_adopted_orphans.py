"""What acts upon a charge survives a database that went back in time: a forgotten refund, a capture of an adopted charge."""

from __future__ import annotations

from dataclasses import replace

from service.core.effect import Order, Ready
from service.engine.execute import Executor
from service.engine.kind import Kind
from service.providers.build import capture_provider, refund_provider
from tests.store.books import order
from tests.store.test_recover import CARD, House, house, settings, stripe  # noqa: F401 - fixtures among them

MAKERS = {"refund": refund_provider, "capture": capture_provider}


def upon(charge: str, kind: str, amount: int, ready: Ready) -> Order:
    request = {"charge": charge, "amount": amount, "currency": "eur"}
    asked = order(f"order:17:{kind}", kind=kind, request=request, lane="charge", concerns=charge, ready_when=ready)
    return replace(asked, amount=amount, currency="eur")


def run(house: House, kind: str, effect_id: str) -> str:
    house.books.make_due(effect_id)
    provider = MAKERS[kind](house.settings)
    Executor(house.settings, actor="worker").run(Kind(kind, provider=lambda: provider), [effect_id])
    return str(house.books.effect(effect_id)["state"])


def rows(house: House, kind: str) -> list[int]:
    money = house.stripe.admin("ledger")["money"]
    return [row["amount"] for row in money if row["kind"] == kind and row["seq"] > house.before]


def test_a_forgotten_refund_is_found_and_its_repeated_key_gives_nothing_back_twice(house, books):
    [charge] = house.charged("order:17:charge")
    [first] = books.accept(upon(charge, "refund", 1200, Ready.SETTLED))
    assert run(house, "refund", first) == "succeeded"
    house.forget(first)
    house.quarantine()
    house.recover()
    [again] = books.accept(upon(charge, "refund", 1200, Ready.SETTLED))
    assert run(house, "refund", again) == "succeeded"
    assert rows(house, "refund") == [1200]
    assert books.one("select adopted_by from orphans where kind = 'refund'") == books.effect(again)["id"]
    assert books.one("select count(*) from breaks where closed_at is null and subject like 'refund %%'") == 0


def test_a_charge_that_was_adopted_can_be_captured(house, books):
    held = {**CARD, "capture_method": "manual"}
    [first] = books.accept(order("order:17:charge", request=held))
    assert house.run(first) == {"awaiting": 1}
    house.forget(first)
    house.quarantine()
    house.recover()
    [again] = books.accept(order("order:17:charge", request=held))
    assert house.run(again) == {"awaiting": 1}
    [capture] = books.accept(upon(again, "capture", 4200, Ready.AUTHORISED))
    assert run(house, "capture", capture) == "succeeded"
    assert house.run(again) == {"succeeded": 1}
    assert rows(house, "capture") == [4200]
    assert rows(house, "charge") == []
