"""Whatever is sent in whatever order, the fake Stripe does with keys what the reference model does.

Keys, bodies, time, overlap and profiles are drawn by Hypothesis; the real SDK speaks to the real process; money is
counted in the fake's ledger. And the machine is not blind: each wrong fake is found within a few examples.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import stripe
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.contract.fake_servers import FakeServer, running, wait_until
from tests.contract.fake_stripe import charges, params, sdk
from tests.contract.key_model import REPLAYED_FAILURES, KeyModel

BOUNDED = settings(
    max_examples=25,
    stateful_step_count=14,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a counter-example need not be small to be one, and each step costs a request
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
TURNS = 6
MUTANTS = ("forgets_keys", "no_stored_500", "no_compare", "never_expires")

CARDS = {"pm_1": True, "pm_card_visa_chargeDeclined": False}
BODIES = st.tuples(st.sampled_from([4200, 4300]), st.sampled_from(list(CARDS)))
KEYS = st.sampled_from("abc")
FAULTS = st.sampled_from([None, None, "before", "after"])
# No sum of these comes near half an hour or a day, so that the time a step takes decides nothing.
HOURS = st.sampled_from([0.3, 11.0, 14.0])
Body = tuple[int, str]


class Keys(RuleBasedStateMachine):
    """The fake on one side, the model on the other."""

    fake: ClassVar[FakeServer]
    client: ClassVar[stripe.StripeClient]
    pool: ClassVar[ThreadPoolExecutor]

    @initialize(profile=st.sampled_from(list(REPLAYED_FAILURES)))
    def begin(self, profile: str) -> None:
        self.model = KeyModel(profile)
        self.example = uuid.uuid4().hex
        self.fake.reset()
        self.fake.admin("keys", {"profile": profile})

    def name(self, key: str) -> str:
        return f"{self.example}-{key}"

    def send(self, key: str, body: Body) -> tuple[int, bool]:
        wish = params(self.name(key), amount=body[0], payment_method=body[1], confirm=True)
        try:
            done = self.client.v1.payment_intents.create(wish, {"idempotency_key": self.name(key)})
        except stripe.StripeError as error:
            return error.http_status or 0, "Idempotent-Replayed" in (error.headers or {})
        return 200, "Idempotent-Replayed" in done.last_response.headers

    def count(self, *keys: str) -> None:
        for key in keys:
            assert charges(self.fake, self.name(key)) == self.model.money[key], f"money moved under {key}"

    @rule(key=KEYS, body=BODIES, fault=FAULTS)
    def one_request(self, key: str, body: Body, fault: str | None) -> None:
        if fault:
            # The plan is emptied afterwards: a request that is answered in front of the endpoint leaves it unused.
            self.fake.fault(f"status_500_stored_{fault}", key=self.name(key))
        got = self.send(key, body)
        if fault:
            self.fake.reset()
        assert got == self.model.ask(key, body, pays=CARDS[body[1]], fault=fault)
        self.count(key)

    @rule(key=KEYS, body=BODIES)
    def the_same_again(self, key: str, body: Body) -> None:
        """A retry as a client makes it, soon and with the same body: the step that matters most."""
        if (kept := self.model.kept.get(key)) is not None:
            body = kept.body  # type: ignore[assignment] # it is one of ours
        assert self.send(key, body) == self.model.ask(key, body, pays=CARDS[body[1]])
        self.count(key)

    @rule(first=KEYS, second=KEYS, bodies=st.tuples(BODIES, BODIES))
    def two_at_once(self, first: str, second: str, bodies: tuple[Body, Body]) -> None:
        """The first is held in the middle; what the second hears meanwhile depends on the key."""
        self.fake.fault("barrier", key=self.example, times=None)
        try:
            answers = [self._under_way(first, bodies[0], 0)]
            answers.append(self._under_way(second, bodies[1], self.fake.holding()))
        finally:
            self.fake.reset()
        for key, body, (request, known) in zip((first, second), bodies, answers, strict=True):
            assert request.result(10) == (known or self.model.finish(key, pays=CARDS[body[1]], fault=None))
        self.count(first, second)

    def _under_way(self, key: str, body: Body, held: int) -> tuple[Future[tuple[int, bool]], tuple[int, bool] | None]:
        """Send; wait until one more is held, or this one is answered in front of the barrier, as the model says."""
        known = self.model.begin(key, body)
        request = self.pool.submit(self.send, key, body)
        wait_until(lambda: request.done() or self.fake.holding() > held, f"{key} held or answered")
        # A replay is held as well: it comes from behind the barrier.
        assert request.done() == (known is not None and not known[1]), f"{key} was held, or was not"
        return request, known

    @rule(hours=HOURS)
    def time_passes(self, hours: float) -> None:
        self.fake.advance(hours)
        self.model.hours += hours

    @rule(key=KEYS, body=BODIES)
    @precondition(lambda self: self.model.kept)
    def a_day_later(self, key: str, body: Body) -> None:
        """The step that never comes by chance often enough: the window is over, and the key is used again."""
        self.time_passes(25.0)
        self.one_request(key, body, None)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def drive(fake: FakeServer, pool: ThreadPoolExecutor, *seeds: int) -> None:
    machine = type("Keys", (Keys,), {"fake": fake, "client": sdk(fake), "pool": pool})
    for seed in seeds:
        run_state_machine_as_test(seeded(seed)(machine), settings=BOUNDED)


def test_the_fake_and_the_model_agree(tmp_path: Path, pool: ThreadPoolExecutor, seed: int) -> None:
    with running("stripe", tmp_path / "stripe") as fake:
        drive(fake, pool, seed)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_machine_finds_each_wrong_fake(tmp_path: Path, pool: ThreadPoolExecutor, seed: int, mutant: str) -> None:
    """By one of a few seeds: one alone may never come to the request that tells."""
    with running("stripe", tmp_path / "stripe", "--mutant", mutant) as fake, pytest.raises(AssertionError):
        drive(fake, pool, *range(seed, seed + TURNS))
