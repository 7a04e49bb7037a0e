"""`counterfoil effects verify` and `resolve`, as a person types them: words, rows, exit codes, and what they change."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.contract.fake_servers import FakeServer
from tests.contract.fake_stripe import confirm, create
from tests.flow.doors import Shell, park
from tests.flow.terminal import ME, Run, accepted, run, shell, url  # noqa: F401 - fixtures

NOBODY = "01890000-0000-7000-8000-000000000000"
WHY = ("--reason", "INC-42", "--evidence", "seen in the dashboard")
_keys = count(1)


class Desk:
    """A person's terminal, with the fake behind it."""

    def __init__(self, run: Run, fake: FakeServer, url: str) -> None:
        self._run = run
        self._fake = fake
        self._url = url

    def call(self, line: str, *more: str, **settings: str) -> subprocess.CompletedProcess[str]:
        base = {"stripe_api_key": "sk_test_1", "stripe_api_base": self._fake.address["url"]}
        return self._run(*line.split(), *more, **{**base, **settings})

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self._url, autocommit=True, row_factory=dict_row) as db:
            cursor = db.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def parked(self, *, charged: bool | None = None) -> str:
        """A parked charge; at the provider it is charged, prepared (False) or unheard of (None)."""
        effect_id = accepted(self._run, f"verify:{next(_keys)}")
        park(self._url, effect_id)
        self.rows("update effects set in_doubt = true where id = %s", effect_id)
        # Long enough ago that nothing sent by the attempt can still land.
        self.rows("alter table journal disable trigger user")
        self.rows("update journal set at = at - interval '2 hours' where effect_id = %s", effect_id)
        self.rows("alter table journal enable trigger user")
        if charged is not None:
            intent = create(self._fake, effect_id, customer=None, payment_method="pm_card_visa").id
            known = json.dumps({"payment_intent": intent})
            self.rows("update effects set progress = %s::jsonb where id = %s", known, effect_id)
            if charged:
                confirm(self._fake, intent, f"{effect_id}:confirm")
        return effect_id

    def state(self, effect_id: str) -> str:
        return str(self.rows("select state from effects where id = %s", effect_id)[0]["state"])


@pytest.fixture
def desk(run: Run, stripe_fake: FakeServer, url: str) -> Iterator[Desk]:
    made = Desk(run, stripe_fake, url)
    yield made
    # One test's parked effects are not another one's: `--state parked` would find them.
    made.rows("truncate outbox")


def verdict(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    [line] = done.stdout.splitlines()
    return dict(json.loads(line))


# --- verify ---------------------------------------------------------------------------------------------------------


def test_a_parked_effect_that_the_provider_has_is_settled(desk: Desk) -> None:
    effect_id = desk.parked(charged=True)
    done = desk.call("effects verify --json", effect_id)
    assert done.returncode == 0, done.stderr
    found = verdict(done)
    assert (found["before"], found["state"], found["finding"]) == ("parked", "succeeded", "settled")
    [row] = desk.rows("select actor from journal where effect_id = %s and fact = 'verified'", effect_id)
    assert row["actor"] == ME
    again = desk.call("effects verify --json", effect_id)
    assert (again.returncode, verdict(again)["finding"]) == (0, "agrees")


def test_what_is_not_decided_is_four_and_stays(desk: Desk) -> None:
    ids = [desk.parked(charged=False), desk.parked()]
    done = desk.call("effects verify --json", *ids)
    assert done.returncode == 4
    assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == ["not_confirmed", "not_found"]
    assert [desk.state(one) for one in ids] == ["parked", "parked"]


def test_many_are_chosen_by_state_and_counted_on_stderr(desk: Desk) -> None:
    for charged in (True, None, None):
        desk.parked(charged=charged)
    done = desk.call("effects verify --state parked --kind charge")
    assert done.returncode == 4
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.count("\tsettled\t") == 1
    assert done.stderr.strip().endswith("3 asked: 1 settled, 2 undecided")
    assert len(desk.call("effects verify --state parked --limit 1").stdout.splitlines()) == 1
    assert desk.call("effects verify --state parked --kind email").returncode == 3


def test_a_contradiction_is_six_and_on_the_books(desk: Desk) -> None:
    effect_id = desk.parked(charged=True)
    desk.call("effects resolve --as failed --yes --against-provider", *WHY, effect_id)
    done = desk.call("effects verify --json", effect_id)
    assert (done.returncode, verdict(done)["finding"]) == (6, "contradiction")
    assert desk.state(effect_id) == "failed"
    classes = desk.rows("select class from breaks where subject = %s order by id", effect_id)
    assert [row["class"] for row in classes] == ["against_provider", "contradiction"]


def test_a_provider_that_is_away_is_seven(desk: Desk) -> None:
    effect_id = desk.parked(charged=False)
    for line in ("effects verify", "effects resolve --as failed --yes"):
        more = WHY if "resolve" in line else ()
        done = desk.call(line, *more, effect_id, stripe_api_base="http://127.0.0.1:9")
        assert done.returncode == 7, done.stderr
    assert desk.state(effect_id) == "parked"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("effects verify", 2),
        (f"effects verify {NOBODY} --state parked", 2),
        ("effects verify --state succeeded", 2),
        ("effects verify nonsense", 2),
        (f"effects verify {NOBODY}", 3),
        ("effects verify --state awaiting", 3),
    ],
)
def test_bad_usage_and_nothing_found_are_said(desk: Desk, line: str, code: int) -> None:
    done = desk.call(line)
    assert (done.returncode, done.stdout) == (code, "")


def test_ids_come_by_pipe_as_well(desk: Desk, run: Callable[..., Any], stripe_fake: FakeServer) -> None:
    ids = [desk.parked(), desk.parked()]
    done = run(
        "effects", "verify", "-", stdin="\n".join([*ids, ids[0], ""]),
        stripe_api_key="sk_test_1", stripe_api_base=stripe_fake.address["url"],
    )  # fmt: skip
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ids


# --- resolve --------------------------------------------------------------------------------------------------------


def test_a_person_settles_what_nobody_else_can(desk: Desk) -> None:
    effect_id = desk.parked()
    done = desk.call("effects resolve --as failed --yes --json", *WHY, effect_id)
    assert done.returncode == 0, done.stderr
    assert verdict(done) == {
        "effect_id": effect_id, "before": "parked", "state": "failed", "ending": "resolved", "answer": "not_found",
    }  # fmt: skip
    [row] = desk.rows("select actor, evidence from journal where effect_id = %s and fact = 'resolved'", effect_id)
    assert row["actor"] == ME
    assert (row["evidence"]["reason"], row["evidence"]["evidence"]) == (WHY[1], WHY[3])
    repeated = desk.call("effects resolve --as failed --yes", *WHY, effect_id)
    assert repeated.returncode == 6
    assert "only unknown and parked" in repeated.stderr


def test_the_provider_outranks_the_person(desk: Desk) -> None:
    effect_id = desk.parked(charged=True)
    refused = desk.call("effects resolve --as failed --yes", *WHY, effect_id)
    assert refused.returncode == 6
    assert "the provider has it as pi_" in refused.stderr
    assert desk.state(effect_id) == "parked"
    assert desk.call("effects resolve --as succeeded --yes", *WHY, effect_id).returncode == 0
    [row] = desk.rows("select outcome, provider_ref from effects where id = %s", effect_id)
    assert row["outcome"]["status"] == "succeeded"
    assert row["provider_ref"] == row["outcome"]["payment_intent"]


def test_nothing_goes_back_to_pending_without_proof(desk: Desk) -> None:
    effect_id = desk.parked()
    done = desk.call("effects resolve --as pending --yes", *WHY, effect_id)
    assert done.returncode == 6
    assert "absence is not proven" in done.stderr
    desk.rows("update outbox set parked_reason = 'absent' where effect_id = %s", effect_id)
    assert desk.call("effects resolve --as pending --yes", *WHY, effect_id).returncode == 0
    assert desk.state(effect_id) == "pending"


def test_without_a_terminal_it_asks_for_yes_and_hangs_on_nothing(desk: Desk) -> None:
    effect_id = desk.parked()
    done = desk.call("effects resolve --as failed", *WHY, effect_id)
    assert (done.returncode, done.stdout) == (5, "")
    assert "add --yes" in done.stderr
    assert desk.state(effect_id) == "parked"


@pytest.mark.parametrize(
    "line",
    [
        "--as failed --reason x",
        "--as failed --evidence x",
        "--as maybe --reason x --evidence x",
        "--as failed --reason x --evidence x --ref pi_1",
        "--reason x --evidence x",
    ],
)
def test_what_a_person_must_say_is_asked_for_before_anything_is_read(shell: Shell, line: str) -> None:
    done = shell.run("effects", "resolve", NOBODY, *line.split())
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("name", ["verify", "resolve"])
def test_help_has_examples_and_says_what_the_exit_codes_mean_here(desk: Desk, name: str) -> None:
    flat = " ".join(desk.call(f"effects {name} --help").stdout.split())
    assert f"counterfoil effects {name}" in flat
    assert "0 done · 1 error" in flat
    assert "Here" in flat
