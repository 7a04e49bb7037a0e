"""`counterfoil refund|capture|cancel`: the same door as everybody's, with the command's exit codes."""

from __future__ import annotations

import json

import pytest

from tests.flow.doors import settle
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures

NOBODY = "01890000-0000-7000-8000-000000000000"
MONEY = ("--amount", "1200", "--currency", "eur")
KINDS = {"refund": MONEY, "capture": MONEY, "cancel": ()}


@pytest.mark.parametrize("kind", list(KINDS))
def test_help_has_examples_and_exit_codes(run: Run, kind: str) -> None:
    flat = " ".join(run(kind, "--help").stdout.split())
    assert f"counterfoil {kind} --charge" in flat
    assert "0 done · 1 error" in flat


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_is_accepted_once_under_its_key(run: Run, key: str, kind: str) -> None:
    charge = accepted(run, f"{key}:charge")
    line = (kind, "--charge", charge, *KINDS[kind], "--key", key, "--json")
    first, again = json.loads(run(*line).stdout), json.loads(run(*line).stdout)
    assert (first["kind"], first["state"], first["created"]) == (kind, "pending", True)
    assert (again["id"], again["created"]) == (first["id"], False)
    shown = json.loads(run("effects", "show", first["id"], "--json").stdout)
    assert shown["concerns"] == charge


def test_a_refund_is_waited_for(run: Run, url: str, key: str) -> None:
    charge = accepted(run, f"{key}:charge")
    line = ("refund", "--charge", charge, *MONEY, "--reason", "duplicate", "--metadata", "a=b", "--key", key, "--json")
    waiting = run(*line, "--wait", "0")
    assert waiting.returncode == 4
    settle(url, charge)
    settle(url, json.loads(waiting.stdout)["id"])
    done = run(*line, "--wait", "5")
    assert done.returncode == 0
    assert json.loads(done.stdout)["outcome"]["state"] == "succeeded"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("--charge", NOBODY, *MONEY), "charge"),
        (("--charge", "pi_1", *MONEY), "charge"),
        (("--amount", "4201", "--currency", "eur"), "amount"),
        (("--amount", "1200", "--currency", "usd"), "currency"),
        ((*MONEY, "--reason", "because"), "reason"),
        ((*MONEY, "--metadata", "a"), "metadata"),
    ],
)
def test_what_does_not_fit_is_two_and_names_the_field(
    run: Run,
    key: str,
    change: tuple[str, ...],
    field: str,
) -> None:
    known = () if "--charge" in change else ("--charge", accepted(run, f"{key}:charge"))
    done = run("refund", *known, *change, "--key", key, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["field"] == field


def test_a_charge_can_be_held_by_hand(run: Run, key: str) -> None:
    pay = ("charge", "--amount", "900", "--currency", "usd", "--payment-method", "pm_1", "--key", key, "--json")
    held = run(*pay, "--capture-method", "manual")
    assert held.returncode == 0
    assert run(*pay).returncode == 6  # another request under the same key
