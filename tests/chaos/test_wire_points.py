"""The wire breaks at each chunk between our processes and Postgres, the broker and the provider; every charge happens once.

N = 1, 2, 3 … until the N-th chunk does not come any more, each way, for each fault (`Fault`); the oracle after each. The
controls take a guard out, and the same faults must find the second movement of money: else this proves nothing.
A seed decides what is drawn; COUNTERFOIL_TEST_SEED repeats a draw, COUNTERFOIL_TEST_POINT=WAY:N one point of one test:

    COUNTERFOIL_TEST_POINT=up:7 python -m pytest -m slow tests/chaos/test_wire_points.py -k 'any and relay-broker and torn and cold'
"""

from __future__ import annotations

import random
from itertools import count

import pytest

from tests.chaos.wire.loop import LINKS, Loop, loop
from tests.chaos.wire.proxy import Fault, Way
from tests.flow.system import System

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
slow = pytest.mark.slow
EACH_FAULT = 2
# A draw from beyond the last chunk fires nowhere and is drawn again.
DRAWS_MAX = 8
POINTS = [pytest.param(name, fault) for name in LINKS for fault in Fault]
_keys = count(1)


def _tell(capsys: pytest.CaptureFixture[str], what: str, house: Loop) -> None:
    with capsys.disabled():
        print(f"\n  {what}: {house.tally}")


def test_a_few_chunks_drawn_by_the_seed_are_broken_and_every_charge_happens_once(
    system: System, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short profile of what follows: each fault twice, each link twice and more."""
    draw = random.Random(seed)
    links = [name for _ in range(3) for name in draw.sample(LINKS, len(LINKS))]
    with loop(system, seed, shortly=True) as house:
        chunks = {place: len(labels) for place, labels in house.undisturbed().items()}
        for fault, name in zip([*Fault] * EACH_FAULT, links, strict=False):
            for _ in range(DRAWS_MAX):
                way = draw.choice([*Way])
                point = house.point(name, way, draw.randint(1, chunks[name, way]), fault)
                if house.judged(name, point).fired:
                    break
        _tell(capsys, f"wire, seed {seed}", house)
        assert house.tally.faults == dict.fromkeys(Fault, EACH_FAULT)
        assert set(house.tally.points) == set(LINKS)


@slow
@pytest.mark.parametrize(("name", "fault"), POINTS)
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_any_chunk_of_a_link_is_broken_and_every_charge_happens_once(
    system: System, name: str, fault: Fault, cold: bool, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cold: the link's connections were reset the moment before, so that making new ones is among the points."""
    with loop(system, seed) as house:
        house.cold = cold
        for way in Way:
            house.every_point(name, way, fault)
        _tell(capsys, f"{name}, {fault}, {'cold' if cold else 'warm'}, seed {seed}", house)
        assert house.tally.points


def test_with_a_random_key_a_broken_wire_to_the_provider_finds_a_second_refund(system: System, seed: int) -> None:
    """A charge is also held by its PaymentIntent, which succeeds once whatever the key; a refund has the key alone."""
    from tasks import task_of

    def refund() -> str:
        # A part: Stripe itself refuses a second whole refund, and would cover up for us.
        wish = {"charge": paid, "amount": 10, "currency": "eur"}
        return str(task_of("refund").apply_async(kwargs=wish, dedupe_key=f"wire:{next(_keys)}:refund").id)

    with loop(system, seed, control="random_key") as house:
        paid = house.accept()
        system.settles(paid)
        house.accept = refund
        assert _twice(house)


def test_without_key_and_recovery_point_a_broken_wire_to_the_provider_finds_a_double_charge(
    system: System, seed: int
) -> None:
    with loop(system, seed, control="no_recovery_point") as house:
        assert _twice(house)


def _twice(house: Loop) -> bool:
    """Whether some point of the provider's link has moved money twice."""
    for way, fault in ((Way.UP, Fault.DONE), (Way.DOWN, Fault.LOST)):
        for n in count(1):
            if not house.hit("worker-stripe", house.point("worker-stripe", way, n, fault)).fired:
                break
            if any(x.startswith("I1") and "charged 2 times" in x for x in house.system.oracle.violations()):
                return True
    return False
