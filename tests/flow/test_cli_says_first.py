"""Before it writes, the command says what and where, takes no part of an incident by accident, and can be tried dry."""

from __future__ import annotations

import json
import subprocess
import sys

import psycopg

from service.cli.replaying import LIMIT_DEFAULT
from tests.flow.doors import environment, park
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures
from tests.server import ROOT


def test_more_than_a_thousand_are_only_begun_by_whoever_says_how_many(run: Run, url: str, key: str) -> None:
    code = (
        "from tasks import charge\n"
        "wish = dict(amount=4200, currency='eur', payment_method='pm_card_visa')\n"
        "options = dict(priority=0, countdown=86400)\n"
        f"charge.apply_many([dict(kwargs=wish, dedupe_key=f'{key}:{{n}}', **options) for n in range({LIMIT_DEFAULT + 1})])\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(database_url=url), cwd=ROOT, check=True)
    words = ("outbox", "park", "--key-prefix", f"{key}:", "--reason", "x", "--execute", "--yes", "--no-wait")
    refused = run(*words)
    assert refused.returncode == 6
    assert f"--limit {LIMIT_DEFAULT} takes the oldest" in refused.stderr
    assert run("ops", "list", "--state", "running").returncode == 3
    planned = json.loads(run("outbox", "park", "--key-prefix", f"{key}:", "--json").stdout)
    assert (planned["eligible"], planned["more"]) == (LIMIT_DEFAULT, True)
    begun = run(*words, "--limit", str(LIMIT_DEFAULT), "--json")
    assert json.loads(begun.stdout.splitlines()[-1])["executed"] is True
    run("ops", "cancel", json.loads(begun.stdout.splitlines()[-1])["operation"])


def test_that_a_replay_cannot_be_called_back_is_said_for_one_effect_too(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    done = run("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes", "--no-wait")
    assert "cannot be called back" in done.stderr
    run("ops", "cancel", done.stdout.split("operation")[1].split()[0])


def test_a_dry_run_of_resolve_and_recover_writes_nothing(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    settled = ("effects", "resolve", effect_id, "--as", "failed", "--reason", "x", "--evidence", "y")
    dry = run(*settled, "--dry-run")
    assert dry.returncode == 0
    assert f"{effect_id}, a charge, would be settled as failed at postgresql" in " ".join(dry.stderr.split())
    assert run("recover", "--execute", "--dry-run", "--reason", "x").returncode == 2
    with psycopg.connect(url) as connection:
        assert connection.execute("select state from effects where id = %s", (effect_id,)).fetchone() == ("parked",)


def test_where_old_and_personal_data_goes_from_is_said_before_it_goes(run: Run, url: str) -> None:
    database = url.rpartition("/")[2].partition("?")[0]
    assert f"/{database}" in run("db", "prune", "--execute").stderr.splitlines()[0]


def test_verbose_is_a_word_before_any_command(run: Run) -> None:
    assert run("--verbose", "outbox", "stats").returncode == 0
