"""`counterfoil audit` without a terminal: the headline, the breaks, their exit code, and what a person does with them."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.store import audits
from tests.contract.fake_servers import FakeServer
from tests.flow.doors import Shell
from tests.flow.terminal import ME, shell  # noqa: F401 - a fixture
from tests.store.plot import Plot, hours

Audit = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = ("audit", "audit breaks list", "audit breaks assign", "audit breaks note", "audit breaks close")


@pytest.fixture
def run(database: str, stripe_fake: FakeServer, shell: Shell) -> Audit:
    def call(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        stripe = {"stripe_api_key": "sk_test_audit_cli", "stripe_api_base": stripe_fake.address["url"]}
        given = {"database_url": database, **stripe, **settings}
        done = shell.run(*arguments, settings={name: value for name, value in given.items() if value})
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


@pytest.fixture
def plot(database: str, stripe_fake: FakeServer) -> Iterator[Plot]:
    made = Plot(database, stripe_fake)
    yield made
    made.close()


def audit(run: Audit, *more: str) -> subprocess.CompletedProcess[str]:
    """Far in the past, where no other test of this fake has planted anything."""
    return run("audit", "--since", hours(402).isoformat(), "--until", hours(398).isoformat(), "--lag", "0", *more)


def listed(run: Audit, *more: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("audit", "breaks", "list", "--json", *more).stdout.splitlines()]


def test_help_has_examples_and_exit_codes(run: Audit) -> None:
    for name in COMMANDS:
        flat = " ".join(run(*name.split(), "--help").stdout.split())
        assert "Examples:" in flat, name
        assert f"counterfoil {name}" in flat, name
        assert "0 done · 1 error" in flat, name


def test_a_ledger_that_agrees_says_so_in_its_first_line_and_is_zero(run: Audit, plot: Plot) -> None:
    done = run("audit", "--since", "500h", "--until", "499h")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "money objects per effect: no money has moved in this window"
    assert "both sides agree" in done.stderr
    for _ in range(3):
        plot.charge(at=hours(450))
    plot.plant()
    done = run("audit", "--since", "451h", "--until", "449h")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0] == "money objects per effect: 1 (3 effects)"
    assert done.stdout.splitlines()[1].split("\t")[:4] == ["eur", "12600", "12600", "0"]


def test_a_break_is_exit_code_one_a_row_and_a_line_of_csv(run: Audit, plot: Plot, tmp_path: Path) -> None:
    own = plot.charge(at=hours(400))
    plot.object(own, at=hours(400), refer=False)
    plot.plant()
    done = audit(run, "--csv", str(tmp_path / "breaks.csv"))
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "money objects per effect: 2, and must be 1: 2 (1 effects)"
    assert "docs/audit.md" in done.stderr
    with (tmp_path / "breaks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"duplicate_effect", "ledger_drift"}
    [double] = [row for row in rows if row["class"] == "duplicate_effect"]
    assert (double["subject"], double["amount"], double["currency"]) == (own, "4200", "eur")
    again = audit(run, "--json")
    assert again.returncode == 1
    assert again.stderr == "", "no progress beside JSON"
    told = json.loads(again.stdout)
    assert told["money_objects_per_effect"] == 2
    assert told["classes"]["duplicate_effect"] == 1
    assert told["new"]["duplicate_effect"] == 0
    assert {row["subject"] for row in told["breaks"]} == {own, "eur"}

    # What a person does with it.
    [found] = listed(run, "--class", "duplicate_effect")
    number = str(found["id"])
    assert run("audit", "breaks", "assign", number, "--to", "ada").returncode == 0
    assert run("audit", "breaks", "note", number, "asked the bank", "--json").returncode == 0
    [mine] = listed(run, "--owner", "ada")
    assert mine["note"].endswith("asked the bank")
    assert run("audit", "breaks", "close", number, "--reason", "refunded re_1").returncode == 0
    assert run("audit", "breaks", "close", number, "--reason", "again").returncode == 3
    assert listed(run, "--owner", "ada") == []
    [closed] = listed(run, "--owner", "ada", "--closed")
    assert closed["closed_by"] == ME
    assert "refunded re_1" in closed["note"]
    assert run("audit", "breaks", "assign", number, "--to", " ").returncode == 2
    assert "eur" in run("audit", "breaks", "list").stdout
    assert run("audit", "breaks", "list", "--class", "nonsense").returncode == 3


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (("--since", "2h", "--until", "3h"), {}, 2, "is not before --until"),
        (("--since", "yesterday"), {}, 2, "--since is a time like"),
        (("--lag", "-1"), {}, 2, "--lag"),
        (("--since", "5h"), {"stripe_api_key": ""}, 2, "COUNTERFOIL_STRIPE_API_KEY is not set"),
        (("--since", "5h"), {"stripe_api_base": "http://127.0.0.1:9"}, 7, "Stripe does not answer"),
        (("--since", "5h", "--mail-ledger", "nowhere"), {}, 2, "the mail ledger cannot be read"),
        (("--since", "5h", "--csv", "nowhere/at/all.csv"), {}, 2, "--csv cannot be written"),
    ],
)
def test_what_cannot_be_audited_is_one_sentence_and_a_code(
    run: Audit, arguments: tuple[str, ...], settings: dict[str, str], code: int, words: str
) -> None:
    done = run("audit", *arguments, **settings)
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())


def test_a_second_audit_at_once_says_so(run: Audit, settings_from: Callable[..., object], database: str) -> None:
    settings_from(database_url=database)
    with audits.session():
        done = run("audit", "--since", "500h", "--until", "499h", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"].startswith("another audit is under way")
