"""The wire breaks at each chunk between our processes and Postgres, broker and providers; every effect happens once.

N = 1, 2, 3 … until the N-th chunk does not come any more, each way, for each fault (`Fault`); the oracle after each, and
every label of an undisturbed run must have been hit. Three grids are thinned (`_one_in`): what one seed leaves out the
next ones take, nine seeds in a row are whole. The controls take a guard out, and the same faults must find what
it prevents: else this proves nothing. A seed decides how long and where it tears; COUNTERFOIL_TEST_SEED repeats it,
COUNTERFOIL_TEST_POINT=FAULT:WAY:N one point of one test. A failure prints the command.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import count

import pytest

from tests.chaos.book import record
from tests.chaos.points.subjects import SUBJECTS
from tests.chaos.wire.door import Front
from tests.chaos.wire.loop import LINKS, Loop, loop
from tests.chaos.wire.proxy import Fault, Point, Way
from tests.flow.system import System

pytestmark = pytest.mark.timeout(1200)
slow = pytest.mark.slow
# Each link once, and each fault once and more.
DRAWN = (*LINKS, LINKS[0])
# A draw from beyond the last chunk fires nowhere and is drawn again.
DRAWS_MAX = 8
ROUTES = [
    *((name, "charge", "valkey") for name in LINKS),
    ("worker-broker", "charge", "rabbitmq"),
    ("relay-broker", "charge", "rabbitmq"),
    ("worker-postgres", "refund", "valkey"),
    ("worker-mail", "keyed", "valkey"),
]
# Answers that say "committed": to a COMMIT, or to a statement that is a transaction by itself.
COMMITTED = {
    "worker-postgres": ("after COMMIT", "after with gate as", "after with input as"),
    "relay-postgres": ("after with overdue as",),
}
# New connections are the same whatever is sent over them: one subject is enough for them.
STARTS = [(cold, *route) for route in ROUTES for cold in ([False, True] if route[1] == "charge" else [False])]
PARTS = [pytest.param(cold, *route, id="-".join(("cold" if cold else "warm", *route))) for cold, *route in STARTS]
each_part = pytest.mark.parametrize(("cold", "name", "subject", "wire"), PARTS, indirect=["wire"])
# Side by side in one house: what is undisturbed has to be seen once for three of them.
GROUPS = {"broken": (Fault.LOST, Fault.DONE, Fault.TORN), "late": (Fault.HELD, Fault.SLOW, Fault.PARTED)}
each_group = pytest.mark.parametrize("group", GROUPS)
each_start = pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
_keys = count(1)


def _one_in(group: str, *, cold: bool) -> int:
    """How thin a grid is. What is late or slow loses nothing, and takes its time; a new connection says thrice as much."""
    return (3 if group == "late" else 1) * (3 if cold else 1)


def _told(capsys: pytest.CaptureFixture[str], what: str, house: Loop, seed: int, **more: int) -> None:
    """Into the book and onto the terminal."""
    tally, broker = house.tally, house.system.wire.name
    counts = {f"fault_{name}": number for name, number in (tally.faults + Counter(more)).items()}
    record("wire points", what, broker=broker, seed=seed, points=tally.points.total(), intents=house.intents, **counts)
    with capsys.disabled():
        print(f"\n  {what}, {broker}, seed {seed}: {tally}")


def test_a_few_chunks_drawn_by_the_seed_are_broken_and_every_charge_happens_once(
    system: System, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The short profile of what follows: each fault and each link, at any chunk."""
    draw = random.Random(seed)
    with loop(system, seed, shortly=True) as house:
        chunks = {place: len(labels) for place, labels in house.undisturbed().items()}
        for fault, name in zip(draw.sample([*Fault], len(Fault)), DRAWN, strict=True):
            for _ in range(DRAWS_MAX):
                way = draw.choice([*Way])
                point = house.point(name, way, draw.randint(1, chunks[name, way]), fault)
                if house.judged(name, point).fired:
                    break
        _told(capsys, "drawn", house, seed)
        assert house.tally.faults == dict.fromkeys(Fault, 1)
        assert set(house.tally.points) == set(LINKS)


@slow
@each_part
@each_group
def test_any_chunk_of_a_link_is_broken_and_every_effect_happens_once(
    system: System, name: str, subject: str, group: str, cold: bool, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cold: the link's connections were reset the moment before, so that making new ones is among the points."""
    with loop(system, seed, names=LINKS if name in LINKS else (*LINKS, name)) as house:
        if subject == "refund":
            house.accept = _refunds(system)
        elif subject != "charge":
            house.accept = SUBJECTS[subject].prepare(system)
        house.cold = cold
        house.every_point(name, GROUPS[group], one_in=_one_in(group, cold=cold))
        _told(capsys, f"{name}, {subject}, {group}, {'cold' if cold else 'warm'}", house, seed)
        assert house.tally.points


@slow
@each_group
@each_start
def test_any_chunk_between_the_api_and_postgres_is_broken_and_a_client_repeats_its_key(
    system: System, group: str, cold: bool, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit whose answer is lost has accepted: the same key then names that very effect (I4)."""
    with loop(system, seed, names=("api-postgres",)) as house:
        front = Front(house)
        house.cold = cold
        for fault in GROUPS[group]:
            unknown = front.found["accepted unknown to the client"]
            house.every_point("api-postgres", [fault], one_in=_one_in(group, cold=False))
            if group == "broken":
                assert front.found["accepted unknown to the client"] > unknown, f"{fault}: {front.found}"
        front.once()
        _told(capsys, f"api-postgres, charge, {group}, {'cold' if cold else 'warm'}", house, seed)
        assert house.tally.points


@slow
@pytest.mark.parametrize("name", COMMITTED)
def test_the_answer_to_each_commit_is_lost_and_every_charge_happens_once(
    system: System, name: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name: what was committed stands, and whoever committed it does not know (W4, W6, W9)."""
    with loop(system, seed) as house:
        labels = house.undisturbed(name)[name, Way.DOWN]
        for n, label in enumerate(labels, 1):
            if label.startswith(COMMITTED[name]):
                house.judged(name, house.point(name, Way.DOWN, n, Fault.LOST))
        for label in {label for label in labels if label.startswith(COMMITTED[name])}:
            house.chase(name, Way.DOWN, label, Fault.LOST)
        lost = [label for label in house.tally.labels if label.partition(": ")[2].startswith(COMMITTED[name])]
        assert len({label.partition(": ")[2].partition(" ")[2][:10] for label in lost}) >= len(COMMITTED[name]), lost
        _told(capsys, f"{name}, commit whose answer is lost", house, seed, commit_answer_lost=len(lost))


# --- controls ---------------------------------------------------------------------------------------------------------


@slow
def test_with_a_random_key_a_broken_wire_to_the_provider_finds_a_second_refund(system: System, seed: int) -> None:
    """A charge is also held by its PaymentIntent, which succeeds once whatever the key; a refund has the key alone."""
    with loop(system, seed, control="random_key") as house:
        house.accept = _refunds(system)
        assert _twice(house)


@slow
def test_without_key_and_recovery_point_a_broken_wire_to_the_provider_finds_a_double_charge(
    system: System, seed: int
) -> None:
    with loop(system, seed, control="no_recovery_point") as house:
        assert _twice(house)


@slow
@pytest.mark.parametrize("control", ["", "no_confirm"], ids=["confirmed", "unconfirmed"])
@pytest.mark.parametrize("wire", ["rabbitmq"], indirect=True)
def test_a_publish_that_never_arrived_is_noticed_by_the_confirm_alone(system: System, seed: int, control: str) -> None:
    """W4. Without it the relay counts as handed over what the broker never had, and only the redelivery finds out."""
    with loop(system, seed, control=control, REDELIVERY="60") as house:
        house.undisturbed()
        publish = next(x for x in house.undisturbed("relay-broker")["relay-broker", Way.UP] if "60.40" in x)
        watch = house.links["relay-broker"].arm(Point(Way.UP, 0, Fault.LOST, label=publish))
        effect_id = house.accept()
        system.until(lambda: watch.over, "the message is lost")
        if not control:
            system.settles(effect_id)
        else:
            system.until(house.quiet, "nobody says anything")
            row = system.outbox(effect_id)
            assert row
            assert (row["road"], row["deliveries"], row["last_error"]) == ("published", 1, None)
            assert system.wire.idle()
            system.sql("update outbox set available_at = now() where effect_id = %s", effect_id)
            system.settles(effect_id)
    system.oracle.check()


def _refunds(system: System) -> Callable[[], str]:
    """A part: Stripe itself refuses a second whole refund, and would cover up for us."""
    from tasks import task_of

    paid = system.charge()
    system.settles(paid)
    wish = {"charge": paid, "amount": 10, "currency": "eur"}
    return lambda: str(task_of("refund").apply_async(kwargs=wish, dedupe_key=f"wire:{next(_keys)}:refund").id)


def _twice(house: Loop) -> bool:
    """Whether some point of the provider's link has moved money twice."""
    for way, fault in ((Way.UP, Fault.DONE), (Way.DOWN, Fault.LOST)):
        for n in count(1):
            if not house.hit("worker-stripe", house.point("worker-stripe", way, n, fault)).fired:
                break
            if any(x.startswith("I1") and "charged 2 times" in x for x in house.system.oracle.violations()):
                return True
    return False
