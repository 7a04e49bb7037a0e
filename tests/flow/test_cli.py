"""The command keeps its promises without a terminal: data on stdout, one sentence and an exit code, never a traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from tests.flow.doors import VISA, Shell, environment, park, settle
from tests.flow.terminal import ME, Run, accepted, charge, key, run, shell, url  # noqa: F401 - fixtures
from tests.server import Server

COMMANDS = (
    "up", "doctor", "config show", "api", "relay", "worker", "beat", "db upgrade", "db check", "charge", "email",
    "refund", "capture", "cancel", "audit", "audit breaks list", "audit breaks assign", "audit breaks note",
    "audit breaks close", "recover", "effects list", "effects show", "effects verify", "effects resolve", "outbox list", "outbox show", "outbox stats", "outbox groups", "outbox note", "outbox replay", "outbox park", "outbox unpark", "outbox apply",
    "ops list", "ops show", "ops watch", "ops pause", "ops resume", "ops cancel", "lanes list", "lanes pause", "lanes resume", "top",
)  # fmt: skip
NOBODY = "01890000-0000-7000-8000-000000000000"


# --- help and habits ----------------------------------------------------------------------------------------------


def test_help_of_every_command_has_examples_and_exit_codes(run: Run) -> None:
    for name in COMMANDS:
        done = run(*name.split(), "--help")
        assert done.returncode == 0, name
        flat = " ".join(done.stdout.split())
        assert "Examples:" in flat, name
        assert "0 done · 1 error" in flat, name
        assert f"counterfoil {name}" in flat, name


def test_the_chaos_suite_has_a_front_that_says_what_it_takes() -> None:
    def told(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "service", "chaos", *words]
        return subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)

    assert "counterfoil chaos run" in told("--help").stdout
    unknown = told("report", "no-such-run")
    assert unknown.returncode == 3
    assert "no chaos run no-such-run" in unknown.stderr


def test_no_colour_is_written_when_none_is_wanted(run: Run) -> None:
    assert "\x1b" not in run("--help").stdout
    assert "\x1b" not in run("doctor").stdout


@pytest.mark.parametrize(
    "line", ["effects nonsense", "charge --amount x", "effects list --limit 0", "outbox list --state odd"]
)
def test_bad_usage_is_two(run: Run, line: str) -> None:
    done = run(*line.split())
    assert done.returncode == 2
    assert done.stdout == ""


def test_the_installed_command_and_the_module_are_the_same() -> None:
    name = Path(sys.executable).with_name("counterfoil")
    ways = [[sys.executable, "-m", "service"], *([[str(name)]] if name.exists() else [])]
    for way in ways:
        done = subprocess.run([*way, "nonsense"], env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "No such command" in done.stderr


# --- what is not there --------------------------------------------------------------------------------------------

NEEDY = (
    "api", "relay", "worker", "beat", "effects list", "outbox stats", "db check", "db upgrade", "up --no-embedded",
    "charge --amount 1 --currency eur --payment-method pm_1 --key k",
    "email --to a@example.test --subject s --text t --key k",
)  # fmt: skip


@pytest.mark.parametrize("line", NEEDY)
def test_without_a_database_one_sentence_names_the_fix(shell: Shell, line: str) -> None:
    done = shell.run(*line.split())
    assert done.returncode == 2
    assert "COUNTERFOIL_DATABASE_URL is not set" in done.stderr
    assert "counterfoil up" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("line", ["effects list", "outbox stats", "db check", "outbox replay --state parked"])
def test_a_database_that_does_not_answer_is_seven(shell: Shell, line: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"postgresql://u:secret-word@127.0.0.1:{closed.getsockname()[1]}/x"
        done = shell.run(*line.split(), settings={"database_url": nowhere})
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    assert "secret-word" not in done.stderr


def test_errors_are_json_too_when_asked_for(run: Run) -> None:
    done = run("effects", "show", NOBODY, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["code"] == "effect_not_found"


def test_an_open_api_without_keys_is_refused(run: Run) -> None:
    done = run("api", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - refused is the point
    assert done.returncode == 2
    assert "COUNTERFOIL_API_OPEN" in done.stderr


def test_a_taken_port_is_one_sentence(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("api", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "COUNTERFOIL_API_PORT" in done.stderr


# --- accepting ----------------------------------------------------------------------------------------------------


def test_a_charge_is_accepted_once_under_its_key(run: Run, key: str) -> None:
    first, again = charge(run, key), charge(run, key)
    assert (first.returncode, again.returncode) == (0, 0)
    one, two = json.loads(first.stdout), json.loads(again.stdout)
    assert (one["created"], two["created"]) == (True, False)
    assert one["id"] == two["id"]
    assert one["state"] == "pending"


def test_the_key_with_another_request_is_six(run: Run, key: str) -> None:
    charge(run, key)
    done = charge(run, key, amount="4300")
    assert done.returncode == 6
    assert json.loads(done.stdout)["error"]["code"] == "dedupe_conflict"


@pytest.mark.parametrize(
    "change", [{"amount": "-5"}, {"currency": "EUR"}, {"payment-method": VISA}, {"key": VISA}, {"amount": VISA}]
)
def test_a_bad_request_is_two_and_tells_the_field(run: Run, key: str, change: Mapping[str, str]) -> None:
    done = charge(run, key, **change)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["field"]


def test_waiting_tells_how_it_ended(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    assert charge(run, key, "--wait", "0").returncode == 4
    settle(url, effect_id)
    done = charge(run, key, "--wait", "5")
    assert done.returncode == 0
    assert json.loads(done.stdout)["outcome"]["state"] == "succeeded"


def test_an_email_is_accepted(run: Run, key: str) -> None:
    done = run("email", "--to", "ada@example.test", "--subject", "Hi", "--text", "Hello", "--key", key, "--json")
    assert json.loads(done.stdout)["kind"] == "email"


# --- looking ------------------------------------------------------------------------------------------------------


def test_lists_are_one_object_a_line(run: Run, key: str) -> None:
    effect_id = accepted(run, key)
    for noun, name in (("effects", "id"), ("outbox", "effect_id")):
        done = run(noun, "list", "--limit", "10000", "--json")
        assert effect_id in {json.loads(line)[name] for line in done.stdout.splitlines()}
        plain = run(noun, "list", "--limit", "10000")
        assert effect_id in {line.split("\t")[0] for line in plain.stdout.splitlines()}


def test_an_effect_is_shown_with_its_journal(run: Run, key: str) -> None:
    effect_id = accepted(run, key)
    shown = json.loads(run("effects", "show", effect_id, "--json").stdout)
    assert [fact["fact"] for fact in shown["journal"]] == ["accepted"]
    assert json.loads(run("outbox", "show", effect_id, "--json").stdout)["state"] == "pending"
    assert effect_id in run("effects", "show", effect_id).stdout


def test_nothing_matched_is_three(run: Run) -> None:
    assert run("effects", "list", "--kind", "nothing").returncode == 3
    assert run("outbox", "list", "--kind", "nothing").returncode == 3
    assert run("outbox", "show", NOBODY).returncode == 3
    assert run("effects", "show", NOBODY).returncode == 3
    assert run("effects", "show", "nonsense").returncode == 2


def test_stats_are_numbers(run: Run, key: str) -> None:
    accepted(run, key)
    assert json.loads(run("outbox", "stats", "--json").stdout)["fresh"] >= 1


# --- replay -------------------------------------------------------------------------------------------------------


def test_replay_shows_a_plan_and_does_nothing(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    park(url, effect_id)
    done = run("outbox", "replay", "--id", effect_id, "--id", NOBODY, "--json")
    plan = json.loads(done.stdout)
    assert done.returncode == 0
    assert plan["executed"] is False
    assert (plan["eligible"], plan["money"], plan["skipped"]) == (1, {"eur": 4200}, {"no such effect": 1})
    assert json.loads(run("outbox", "show", effect_id, "--json").stdout)["state"] == "parked"


def test_replay_starts_an_operation_that_the_relay_carries_out(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    park(url, effect_id)
    words = ("outbox", "replay", "--id", "-", "--reason", "INC-42", "--execute", "--yes", "--no-wait", "--json")
    done = run(*words, stdin=f"{effect_id}\n")
    assert done.returncode == 0, done.stderr
    started = json.loads(done.stdout)
    assert (started["executed"], started["state"], started["eligible"]) == (True, "running", 1)
    known = json.loads(run("ops", "show", started["operation"], "--items", "--json").stdout)
    assert (known["reason"], known["waiting"], known["items"][0]["effect_id"]) == ("INC-42", 1, effect_id)
    assert known["started_by"] == ME
    paused = json.loads(run("ops", "pause", started["operation"], "--json").stdout)
    assert paused["state"] == "paused"
    assert json.loads(run("ops", "resume", started["operation"], "--json").stdout)["state"] == "running"
    assert json.loads(run("ops", "cancel", started["operation"], "--json").stdout)["state"] == "cancelled"
    assert run("ops", "resume", started["operation"]).returncode == 2
    assert json.loads(run("outbox", "show", effect_id, "--json").stdout)["state"] == "parked"


def test_replay_goes_on_with_what_was_paused_and_with_nothing_else(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    words = ("--reason", "x", "--execute", "--yes", "--no-wait", "--batch", "7", "--json")
    one = json.loads(run("outbox", "replay", "--id", effect_id, *words).stdout)["operation"]
    assert json.loads(run("ops", "show", one, "--json").stdout)["batch"] == 7
    run("ops", "pause", one)
    for wrong in (("--state", "parked"), ("--execute",), ("--batch", "9"), ("--limit", "1")):
        refused = run("outbox", "replay", "--resume", one, *wrong)
        assert (refused.returncode, "leave out" in refused.stderr) == (2, True)
    other = run("outbox", "park", "--resume", one)
    assert (other.returncode, f"counterfoil outbox replay --resume {one}" in other.stderr) == (2, True)
    assert run("outbox", "replay", "--resume", NOBODY).returncode == 3
    done = run("outbox", "replay", "--resume", one, "--no-wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "running")
    assert run("outbox", "replay", "--resume", one, "--no-wait").returncode == 2
    run("ops", "cancel", one)


def test_a_plan_is_applied_by_its_id_once_and_with_a_reason(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    plan = json.loads(run("outbox", "replay", "--id", effect_id, "--json").stdout)["plan"]
    assert run("outbox", "apply", plan, "--yes").returncode == 2
    assert run("outbox", "apply", plan, "--reason", "x").returncode == 5
    done = run("outbox", "apply", plan, "--reason", "x", "--yes", "--no-wait", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "running")
    again = run("outbox", "apply", plan, "--reason", "x", "--yes", "--no-wait")
    assert again.returncode == 2
    assert "running already" in again.stderr
    assert run("outbox", "apply", NOBODY, "--reason", "x", "--yes").returncode == 3
    run("ops", "cancel", plan)


def test_without_a_relay_whoever_waits_is_told_and_let_go(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    done = run("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes", "--json")
    assert done.returncode == 4
    assert "counterfoil relay" in done.stderr
    run("ops", "cancel", json.loads(done.stdout)["operation"])


def test_lists_come_as_table_json_csv_and_ids_and_ids_go_from_one_command_into_the_next(
    run: Run, url: str, key: str
) -> None:
    park(url, effect_id := accepted(run, key))
    ids = run("outbox", "list", "--state", "parked", "--output", "ids").stdout
    assert effect_id in ids.split()
    plan = json.loads(run("outbox", "replay", "--id", "-", "--json", stdin=ids).stdout)
    assert plan["eligible"] == len(ids.split())
    head, *rows = run("outbox", "list", "--state", "parked", "-o", "csv").stdout.splitlines()
    assert head.startswith("effect_id,kind,state")
    assert len(rows) == len(ids.split())
    assert (
        json.loads(run("outbox", "list", "--state", "parked", "-o", "json").stdout.splitlines()[0])["state"] == "parked"
    )
    assert run("outbox", "list", "-o", "xml").returncode == 2


def test_selectors_say_what_is_wrong_with_them(run: Run) -> None:
    for words in (
        ["--older-than", "soon"], ["--since", "yesterday"], ["--state", "succeeded"], ["--operation", "x"],
        ["--state", "parked", "--rate", "fast"], ["--state", "parked", "--rate", "0/s"], ["--tenant", "default"],
    ):  # fmt: skip
        done = run("outbox", "replay", *words, "--json")
        assert done.returncode == 2, words
        assert json.loads(done.stdout)["error"]["field"], words


def test_groups_gather_what_fails_alike_and_keep_notes(run: Run, url: str, key: str) -> None:
    park(url, accepted(run, f"{key}:a"))
    park(url, accepted(run, f"{key}:b"))
    group = json.loads(run("outbox", "groups", "--json").stdout.splitlines()[0])
    assert group["count"] >= 2
    assert run("outbox", "note", group["id"], "see INC-42").returncode == 0
    assert run("outbox", "note", "nobody", "x").returncode == 2
    noted = json.loads(run("outbox", "groups", "--json").stdout.splitlines()[0])
    assert noted["notes"][-1]["note"] == "see INC-42"
    plan = json.loads(run("outbox", "replay", "--group", group["id"], "--json").stdout)
    assert plan["eligible"] == group["count"]


def test_stats_name_each_cause_and_the_one_thing_to_do(run: Run, url: str, key: str) -> None:
    park(url, accepted(run, key))
    found = json.loads(run("outbox", "stats", "--json").stdout)
    assert "parked" in {row["cause"] for row in found["causes"]}
    oldest = found["next"].removeprefix("find out why: counterfoil effects show ")
    assert "see the plan: counterfoil outbox replay --group" in run("effects", "show", oldest).stderr
    assert "never published" in {row["cause"] for row in found["causes"]} or found["fresh"] == 0
    assert "parked" in run("top", "--once").stdout


def test_lanes_are_paused_with_a_reason_and_resumed(run: Run) -> None:
    assert run("lanes", "pause", "nowhere", "--reason", "x").returncode == 2
    assert run("lanes", "pause", "email", "--reason", "INC-44").returncode == 0
    assert run("lanes", "pause", "email", "--reason", "INC-44").returncode == 2
    lanes = {row["name"]: row for row in map(json.loads, run("lanes", "list", "--json").stdout.splitlines())}
    assert (lanes["email"]["pause_reason"], lanes["charge"]["paused_at"]) == ("INC-44", None)
    assert run("lanes", "resume", "email").returncode == 0
    assert run("lanes", "resume", "email").returncode == 2


def test_replay_by_state_takes_only_that_state(run: Run, url: str, key: str) -> None:
    park(url, parked := accepted(run, f"{key}:a"))
    pending = accepted(run, f"{key}:b")
    plan = json.loads(run("outbox", "replay", "--state", "parked", "--json").stdout)
    assert plan["eligible"] >= 1
    done = run("outbox", "replay", "--id", pending, "--id", parked, "--state", "parked", "--json")
    assert json.loads(done.stdout)["skipped"] == {"pending, not parked": 1}


def test_replay_of_a_settled_effect_is_nothing_to_do(run: Run, url: str, key: str) -> None:
    settle(url, effect_id := accepted(run, key))
    done = run("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["skipped"] == {"settled: succeeded": 1}


def test_replay_asks_and_never_hangs(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    assert run("outbox", "replay").returncode == 2
    assert run("outbox", "replay", "--id", effect_id, "--execute").returncode == 2
    assert run("outbox", "replay", "--state", "succeeded").returncode == 2
    assert run("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute").returncode == 5
    assert json.loads(run("outbox", "show", effect_id, "--json").stdout)["state"] == "parked"


# --- settings and checks ------------------------------------------------------------------------------------------


def test_config_show_hides_secrets_and_names_sources(run: Run) -> None:
    secrets = {
        "database_url": "postgresql://me:hush-1@127.0.0.1:5/x?sslpassword=hush-2",
        "broker_url": "redis://:hush-3@127.0.0.1:6/0",
        "stripe_api_key": "sk_test_hush4",
        "stripe_webhook_secret": "whsec_hush5",
        "email_url": "resend+https://re_hush6@mail.example.test",
    }
    done = run("config", "show", "--json", **secrets)
    assert done.returncode == 0
    assert "hush" not in done.stdout + done.stderr
    shown = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert shown["COUNTERFOIL_DATABASE_URL"]["value"] == "postgresql://me:***@127.0.0.1:5/x?sslpassword=***"
    assert shown["COUNTERFOIL_DATABASE_URL"]["source"] == "environment"
    assert shown["COUNTERFOIL_STRIPE_API_KEY"]["value"] == "sk_test_***"
    assert shown["COUNTERFOIL_SLOTS"] == {"name": "COUNTERFOIL_SLOTS", "value": 32, "source": "default"}


def test_a_wrong_setting_is_one_sentence(run: Run) -> None:
    done = run("config", "show", lease="1")
    assert done.returncode == 2
    assert "COUNTERFOIL_LEASE" in done.stderr


def test_doctor_names_what_is_wrong_and_its_fix(run: Run) -> None:
    done = run("doctor", "--json")
    found = json.loads(done.stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert (done.returncode, found["ok"]) == (1, False)
    assert all(
        checks[name]["ok"] for name in ("database", "version", "tables", "isolation", "clock", "pairs", "durable")
    )
    assert not checks["broker"]["ok"]
    assert "COUNTERFOIL_BROKER_URL" in checks["broker"]["fix"]


def test_doctor_without_anything_still_answers(shell: Shell) -> None:
    done = shell.run("doctor")
    assert done.returncode == 1
    assert "✗ database" in done.stdout
    assert "fix:" in done.stdout


def test_doctor_sees_a_broken_pair(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    with psycopg.connect(url) as connection:
        [row] = connection.execute("delete from outbox where effect_id = %s returning *", (effect_id,)).fetchall()
    try:
        checks = {check["name"]: check for check in json.loads(run("doctor", "--json").stdout)["checks"]}
        assert not checks["pairs"]["ok"]
        assert "I7" in checks["pairs"]["meaning"]
    finally:
        with psycopg.connect(url) as connection:
            marks = ", ".join(["%s"] * len(row))
            connection.execute(f"insert into outbox values ({marks})".encode(), row)


def test_db_upgrade_fills_an_empty_database_and_is_repeatable(postgres: Server, run: Run) -> None:
    with postgres.database() as name:
        there = {"database_url": postgres.url_of(name)}
        assert run("db", "check", "--json", **there).returncode == 1
        first = run("db", "upgrade", "--json", **there)
        assert json.loads(first.stdout)["before"] is None
        assert json.loads(run("db", "upgrade", "--json", **there).stdout)["changed"] is False
        assert run("db", "check", **there).returncode == 0


@pytest.mark.parametrize(
    ("login", "known"),
    [("ada", "ada"), ("ada l\n\x07@x", "ada-l---x"), (b"\xff".decode(errors="surrogateescape"), "-")],
)
def test_who_types_stands_in_the_books_as_one_word_at_a_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch, login: str, known: str
) -> None:
    monkeypatch.setenv("LOGNAME", login)
    assert run("lanes", "pause", "email", "--reason", "INC-45").returncode == 0
    lanes = {row["name"]: row for row in map(json.loads, run("lanes", "list", "--json").stdout.splitlines())}
    assert lanes["email"]["paused_by"] == f"{known}@{ME.partition('@')[2]}"
    assert run("lanes", "resume", "email").returncode == 0
