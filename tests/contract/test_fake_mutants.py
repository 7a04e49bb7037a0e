"""Each wrong fake is wrong in its one way and honest in all others, and says what it is."""

from __future__ import annotations

import contextlib
import urllib.error
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stripe

from tests.contract.fake_servers import FakeServer, running
from tests.contract.fake_stripe import charges, create

MUTANTS = ("forgets_keys", "no_stored_500", "no_compare", "never_expires")
HONEST = "honest"
# A day and a bit: past the retention, which is 24 hours.
EXPIRED_HOURS = 24.5


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], FakeServer]]:
    """Fakes by the name of their mutant, one process each."""
    with contextlib.ExitStack() as stack:
        known: dict[str, FakeServer] = {}

        def get(name: str) -> FakeServer:
            if name not in known:
                options = [] if name == HONEST else ["--mutant", name]
                known[name] = stack.enter_context(running("stripe", tmp_path_factory.mktemp(name), *options))
            return known[name]

        yield get


def money_after_a_retry(fake: FakeServer, effect: str) -> object:
    for _ in range(2):
        create(fake, effect, confirm=True)
    return charges(fake, effect)


def money_after_a_500_and_a_retry(fake: FakeServer, effect: str) -> object:
    fake.fault("status_500_stored_after", key=effect)
    for _ in range(2):
        with contextlib.suppress(stripe.APIError):
            create(fake, effect, confirm=True)
    return charges(fake, effect)


def answer_to_another_body(fake: FakeServer, effect: str) -> object:
    create(fake, effect, confirm=True)
    try:
        return create(fake, effect, confirm=True, amount=4300).amount
    except stripe.IdempotencyError:
        return "refused"


def money_after_a_late_retry(fake: FakeServer, effect: str) -> object:
    create(fake, effect, confirm=True)
    fake.advance(EXPIRED_HOURS)
    create(fake, effect, confirm=True)
    return charges(fake, effect)


PROBES: dict[Callable[[FakeServer, str], object], dict[str, object]] = {
    money_after_a_retry: {HONEST: 1, "forgets_keys": 2},
    money_after_a_500_and_a_retry: {HONEST: 1, "forgets_keys": 2, "no_stored_500": 2},
    answer_to_another_body: {HONEST: "refused", "forgets_keys": 4300, "no_compare": 4200},
    money_after_a_late_retry: {HONEST: 2, "never_expires": 1},
}


@pytest.mark.parametrize("name", [HONEST, *MUTANTS])
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
def test_a_mutant_differs_from_the_honest_fake_where_it_should_and_nowhere_else(
    fakes: Callable[[str], FakeServer], probe: Callable[[FakeServer, str], object], name: str
) -> None:
    expected = PROBES[probe]
    assert probe(fakes(name), uuid.uuid4().hex) == expected.get(name, expected[HONEST])


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_is_found_by_a_probe(name: str) -> None:
    assert any(name in expected for expected in PROBES.values())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_says_what_it_is_and_cannot_be_talked_out_of_it(fakes: Callable[[str], FakeServer], name: str) -> None:
    fake = fakes(name)
    with pytest.raises(urllib.error.HTTPError, match="422"):
        fake.admin("keys", {"mutant": None})
    assert fake.admin("health")["mutant"] == fake.admin("keys")["mutant"] == name


def test_an_honest_fake_cannot_be_turned_into_a_mutant_while_it_runs(fakes: Callable[[str], FakeServer]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="422"):
        fakes(HONEST).admin("keys", {"mutant": "forgets_keys"})
    assert fakes(HONEST).admin("health")["mutant"] is None


def test_a_mutant_that_does_not_exist_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="did not start"):
        FakeServer("stripe", tmp_path / "stripe", "--mutant", "polite")
