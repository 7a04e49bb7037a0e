"""Thousands of small worlds, each from one seed, keep every promise; each guard taken out is found by a seed.

The seeds run in a process of their own: greenlets and a tracer for coverage do not go together, and the command that
repeats a seed is the command that is tested.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from service.core.effect import Policy
from service.providers.mail.smtp import SENDS_MAX
from tests.chaos.book import record
from tests.simulation.database import Broken, Row
from tests.simulation.guards import GUARDS, found, standing_in
from tests.simulation.nemesis import HOUR, KINDS
from tests.simulation.run import ENOUGH_SEEDS, REGRESSIONS, Batch, block, main, regressions, traced
from tests.simulation.run import told as summary
from tests.simulation.world import World

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "simulation.md"
SEEDS = 4_000
PARTS, PART_SEEDS = 8, 125_000  # a million in all, side by side on as many cores as there are


def simulated(*arguments: str, seconds: float) -> Any:
    """What `python -m tests.simulation` says, and its exit code."""
    command = [sys.executable, "-m", "tests.simulation", *arguments, "--json"]
    # No tracer: `pytest --cov` would make it five times slower.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def test_every_promise_is_kept_in_thousands_of_worlds():
    told, code = simulated("--seeds", str(SEEDS), seconds=150)
    assert told["broken"] == [], "\n".join(traced(seed) for seed, _ in told["broken"][:1])
    assert code == 0
    assert told["seeds"] >= SEEDS
    assert told["days"] > 365


def noted(part: int, seed: int, told: dict[str, Any]) -> None:
    """What was met, into the book of the chaos run."""
    counts = {f"{'fault' if name in KINDS else 'branch'}_{slug(name)}": hits for name, hits in told["hits"].items()}
    counts |= {"seeds": told["seeds"], "violations": len(told["broken"]), "events": told["events"]}
    record("simulation", f"worlds {part + 1} of {PARTS}", seed=seed, **counts)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_is_kept_in_a_million_worlds(seed, part):
    """Other worlds in each run; each kind of fault and each branch of recovery must be among them."""
    first = (seed % 10**9 * PARTS + part) * PART_SEEDS
    told, _ = simulated("--seeds", str(PART_SEEDS), "--first", str(first), seconds=1100)
    noted(part, seed, told)
    assert told["broken"] == [], "\n".join(traced(seed) for seed, _ in told["broken"][:1])
    assert told["missing"] == []


@pytest.fixture(scope="module")
def taken_out() -> dict[str, dict[str, Any]]:
    """What became of each guard's absence: one process for all of them."""
    told, _ = simulated("--guards", "--known", seconds=150)
    return {row["guard"]: row for row in told}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_is_needed(taken_out, guard):
    row = taken_out[guard.name]
    assert row["seed"] is not None, f"no seed notices that {guard.name} is missing: {guard.about}"
    assert row["broken"].startswith(guard.breaks), row


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_is_found_without_knowing_where(guard):
    told, _ = simulated("--guard", guard.name, seconds=1100)
    record("guards", f"simulation without {guard.name}", seeds=told[0]["seeds"], points=int(bool(told[0]["broken"])))
    assert told[0]["seed"] is not None
    assert told[0]["broken"].startswith(guard.breaks), told


def test_a_seed_is_its_whole_story():
    assert traced(17) == traced(17)
    assert "again: python -m tests.simulation --replay 17" in traced(17)


def test_a_seed_that_fails_comes_with_its_trace_and_its_faults_and_fails_the_command(capsys):
    wrong = found("repair_day", 1)
    assert wrong is not None
    seed = wrong.partition(":")[0].removeprefix("seed ")
    assert main(["--replay", seed, "--guard", "repair_day"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(wrong)
    assert "options" in shown
    assert "F4 stored 500" in next(line for line in shown.splitlines() if line.startswith("it takes"))
    assert f"--replay {seed} --guard repair_day" in shown
    assert main(["--replay", seed]) == 0
    assert main(["--first", "0", "--seeds", "3"]) == 0


def test_a_broken_promise_is_suggested_for_the_regressions():
    batch = Batch(seeds=1, broken=[(5, "I1 as if")])
    assert "for regressions.txt: 5  # I1 as if" in summary(batch)


def test_a_large_batch_that_never_met_a_fault_fails():
    assert Batch(seeds=ENOUGH_SEEDS - 1).missing() == []
    assert set(KINDS) <= set(Batch(seeds=ENOUGH_SEEDS).missing())


def test_an_outage_after_a_refunds_answer_and_a_day_of_silence_do_not_give_it_back_twice():
    """W9 in two halves: Stripe has answered, its id cannot be noted, and the key is forgotten before the next attempt."""
    with standing_in(None):
        world = World(4)
        world.nemesis.heal()
        world.hooks = False
        honest = world.record

        def stopped(_: object) -> None:
            world.down_until = world.hub.now + 25 * HOUR

        def away(attempt: Any, progress: Any) -> bool:
            if attempt.kind == "refund":
                world.database.away_until = world.hub.now + 10.0
                world.hub.at(10.9, stopped)
                world.record = honest
            return honest(attempt, progress)

        world.record = away
        world.run()


@pytest.mark.parametrize(("policy", "copies"), [(Policy.AT_MOST_ONCE, 1), (Policy.AT_LEAST_ONCE, SENDS_MAX)])
def test_a_receipt_may_come_as_often_as_its_policy_says_in_a_later_life_too(policy, copies):
    """There its id is not its dedupe key, by which the books count; seed 11308327 took the second copy for a breach."""
    world = World(4)
    world.keyed, world.database.lives = False, 1
    receipts = (world.follow_up(charge(f"{number}z")) for number in count())
    receipt = next(one for one in receipts if one and one.policy is policy)
    world.database.accept(receipt)
    assert receipt.id != receipt.dedupe_key
    for _ in range(copies):
        world.books.letter(receipt.id)
    with pytest.raises(Broken, match=r"^I1"):
        world.books.letter(receipt.id)


def charge(id_: str) -> Row:
    """One whose customer asked for a receipt."""
    row = Row(id_, "charge", {}, 0.0)
    row.receipt = True
    return row


def test_the_regressions_are_played_first():
    assert all(isinstance(seed, int) for seed in regressions())
    assert REGRESSIONS.read_text().startswith("#")
    assert all(block(seed, 1).broken == [] for seed in regressions())


def test_the_page_names_every_guard():
    page = PAGE.read_text()
    assert [guard.name for guard in GUARDS if f"`{guard.name}`" not in page] == []
