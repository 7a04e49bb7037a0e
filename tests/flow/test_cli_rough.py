"""The command in rough hands: empty variables, empty pipes, closed streams, full disks, narrow or plain terminals, SIGKILL.

Nothing of it ends in a traceback or "a bug of ours", and none of it reaches more effects than were meant.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flow.doors import environment, park, wait_until
from tests.flow.terminal import Run, accepted, key, run, shell, url  # noqa: F401 - fixtures

ME = f"{shlex.quote(sys.executable)} -m service"


def bash(url: str, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line in which `counterfoil` is this command."""
    script = f"set -o pipefail; {line.replace('counterfoil', ME)}"
    done = subprocess.run(
        ["bash", "-c", script], env={**environment(database_url=url), **env}, capture_output=True, text=True, check=False,
        encoding="utf-8", errors="replace", timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    assert "bug of ours" not in done.stderr
    return done


def seldom(one: str) -> Any:
    return pytest.param(one, marks=pytest.mark.slow)


# --- never more than was meant ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    ["key-prefix", *map(seldom, ("ref", "group", "error-like", "kind", "lane", "operation", "state", "tenant"))],
)
def test_a_selector_that_is_empty_is_refused_and_does_not_mean_everything(run: Run, key: str, option: str) -> None:
    accepted(run, key)
    for words in ([f"--{option}", ""], [f"--{option}", " ", "--older-than", "1s"]):
        done = run("outbox", "replay", *words, "--json")
        assert done.returncode == 2, words
        assert json.loads(done.stdout)["error"]["field"]


def test_an_empty_pipe_of_ids_selects_nothing_whatever_else_is_said(run: Run, key: str) -> None:
    accepted(run, key)
    done = run(
        "outbox", "replay", "--id", "-", "--kind", "charge", "--reason", "x", "--execute", "--yes", stdin="\n \n"
    )
    assert done.returncode == 3
    assert "no id came in" in done.stderr


def test_all_that_is_said_beside_an_id_must_fit_too(run: Run, key: str) -> None:
    effect_id = accepted(run, key)
    for words, fits in (
        (["--key-prefix", key], True), (["--key-prefix", "another"], False), (["--lane", "email"], False),
        (["--older-than", "1h"], False), (["--ref", "pi_1"], False), (["--group", "0" * 12], False),
        (["--error-like", "x"], False), (["--until", "2020-01-01"], False), (["--state", "stuck"], False),
    ):  # fmt: skip
        plan = json.loads(run("outbox", "replay", "--id", effect_id, *words, "--json").stdout)
        assert plan["eligible"] == int(fits), words
        assert plan["skipped"] == ({} if fits else {"the other selectors do not describe it": 1}), words


def test_what_is_too_long_or_too_large_is_refused_before_anything_starts(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    for words in (
        ["--reason", "x" * 501], ["--reason", "x", "--canary", "10001"], ["--reason", "x", "--batch", "0"], ["--reason", "x", "--max-failures", "9" * 20],
        ["--reason", "x", "--max-replays", "9" * 20], ["--reason", "x", "--rate", "9" * 400],
        ["--reason", "x", "--rate", "999999/s"],
    ):  # fmt: skip
        assert run("outbox", "replay", "--id", effect_id, *words, "--execute", "--yes", "--no-wait").returncode == 2, (
            words
        )
    assert json.loads(run("outbox", "show", effect_id, "--json").stdout)["state"] == "parked"


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["outbox list --limit 300", *map(seldom, ("effects list -o csv", "doctor", "outbox stats --json"))]
)
def test_a_reader_that_has_seen_enough_is_no_error(run: Run, url: str, key: str, words: str) -> None:
    accepted(run, key)
    done = bash(url, f"counterfoil {words} | true")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Broken" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_neither_code_nor_effect(run: Run, url: str, key: str, closed: str) -> None:
    park(url, effect_id := accepted(run, key))
    for words, code in (
        (f"outbox replay --id {effect_id} --reason x --execute", 5),
        ("outbox replay --id -", 3),
        ("outbox list", 0),
        ("doctor --json", 1),
    ):
        given = "" if "<&-" in closed else "< /dev/null"
        assert bash(url, f"counterfoil {words} {given} {closed}").returncode == code, words


def test_a_full_disk_is_one_sentence(run: Run, url: str, key: str) -> None:
    accepted(run, key)
    for form in ("--json", "-o csv"):
        done = bash(url, f"counterfoil outbox list {form} > /dev/full")
        assert (done.returncode, done.stderr.strip()) == (
            1,
            "counterfoil: what was to be written found no room: No space left on device",
        )


PLAIN = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    "words", ["top --once", *map(seldom, ("outbox replay --help", "doctor", "outbox list -o table"))]
)
def test_a_terminal_that_knows_only_ascii_is_served(run: Run, url: str, key: str, words: str) -> None:
    accepted(run, key)
    done = bash(url, f"counterfoil {words}", **PLAIN)
    assert done.returncode == (1 if words == "doctor" else 0), done.stderr
    assert done.stdout


def test_json_stays_json_where_only_ascii_can_be_written(run: Run, url: str) -> None:
    assert run("lanes", "pause", "email", "--reason", "Störung, ★").returncode == 0
    said = bash(url, "counterfoil lanes list --json", **PLAIN).stdout
    assert "Störung, ★" in [json.loads(line)["pause_reason"] for line in said.splitlines()]
    assert run("lanes", "resume", "email").returncode == 0


def test_in_a_narrow_terminal_no_column_is_lost(run: Run, url: str, key: str) -> None:
    effect_id = accepted(run, key)
    narrow = bash(url, "counterfoil outbox list -o table --limit 300", COLUMNS="40").stdout
    assert f"effect_id      {effect_id}" in narrow
    assert "deliveries     0" in narrow
    wide = bash(url, "counterfoil outbox list -o table --limit 300", COLUMNS="200").stdout
    assert effect_id in wide
    assert "effect_id      0" not in wide


# --- SIGKILL ------------------------------------------------------------------------------------------------------


def test_a_command_that_is_killed_while_it_executes_leaves_one_operation_that_goes_on(
    run: Run, url: str, key: str, tmp_path: Path
) -> None:
    park(url, effect_id := accepted(run, key))
    words = ["outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes"]
    with (tmp_path / "said").open("wb") as said:
        watching = subprocess.Popen(
            [sys.executable, "-m", "service", *words], env=environment(database_url=url), stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )  # fmt: skip

    def running() -> list[str]:
        rows = run("ops", "list", "--state", "running", "--json").stdout.splitlines()
        return [row["id"] for row in map(json.loads, rows) if row["total"] == 1 and row["waiting"] == 1]

    try:
        wait_until(lambda: bool(running()), seconds=60)
    finally:
        watching.kill()
        watching.wait()
    [operation] = running()
    again = run(*words, "--no-wait", "--json")  # whoever repeats the line makes a second plan of the same effect
    other = json.loads(again.stdout)["operation"]
    assert other != operation
    for one in (operation, other):
        assert json.loads(run("ops", "cancel", one, "--json").stdout)["state"] == "cancelled"
