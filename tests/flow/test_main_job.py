"""The main job, end to end, as it is started in production: `counterfoil relay`, `counterfoil worker`."""

from __future__ import annotations

from tests.flow.system import System


def test_a_charge_and_its_receipt_happen_once_with_two_commands(system: System) -> None:
    system.start("relay", ["service", "relay"], cold=True)
    system.start("worker", ["service", "worker", "--concurrency", "4"], cold=True)
    effect_id = system.charge(receipt="ada@example.test")
    system.settles(effect_id)
    books = system.oracle.check()
    assert len(books.money_of[effect_id]) == 1
    assert [letter["recipient"] for letter in books.letters] == ["ada@example.test"]
