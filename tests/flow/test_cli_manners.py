"""The command behaves: it asks, tells where, is quiet when told to, may be left, completes words, and its codes hold."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.flow.doors import Shell, environment, park, wait_until
from tests.flow.terminal import Run, accepted, charge, key, run, shell, url  # noqa: F401 - fixtures

NOBODY = "01890000-0000-7000-8000-000000000000"
ASKED_ABOVE = 100


@pytest.fixture(autouse=True)
def nothing_goes_on(url: str) -> Iterator[None]:
    """The tests share a database, and come in any order."""
    yield
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "update operations set state = 'cancelled', finished_at = now(), paused_at = null, stop_reason = 'the test is over'"
            " where state in ('running', 'paused')"
        )


class Typed:
    """A command at a terminal of its own, that somebody can answer and interrupt."""

    def __init__(self, url: str, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", *words], stdin=slave, stdout=slave, stderr=slave,
            env=environment(database_url=url), start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)
        self.said = ""

    def says(self, words: str) -> None:
        wait_until(lambda: words in self._heard(), seconds=60)

    def ends(self) -> int:
        wait_until(lambda: self._heard() is not None and self.process.poll() is not None, seconds=60)
        self._heard()
        os.close(self.master)
        return self.process.wait()

    def type(self, words: str) -> None:
        os.write(self.master, words.encode())

    def _heard(self) -> str:
        try:
            while read := os.read(self.master, 65536):
                self.said += read.decode()
        except OSError:  # nothing now, or the other end is closed
            pass
        return self.said


def test_above_a_hundred_the_count_is_typed_and_another_word_does_nothing(run: Run, url: str, key: str) -> None:
    from tests.server import ROOT

    code = (
        "from tasks import charge\n"
        "wish = dict(amount=4200, currency='eur', payment_method='pm_card_visa')\n"
        f"charge.apply_many([dict(kwargs=wish, dedupe_key=f'{key}:{{n}}') for n in range({ASKED_ABOVE + 1})])\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(database_url=url), cwd=ROOT, check=True)
    words = ("outbox", "replay", "--key-prefix", f"{key}:", "--reason", "x", "--execute", "--no-wait")
    asked = Typed(url, *words)
    asked.says(f"Type {ASKED_ABOVE + 1} to go on")
    asked.type("yes\n")
    assert asked.ends() == 5
    assert "nothing was done" in asked.said
    assert run("ops", "list", "--state", "running").returncode == 3
    asked = Typed(url, *words)
    asked.says(f"Type {ASKED_ABOVE + 1} to go on")
    assert f"{ASKED_ABOVE + 1} effects are to be replayed at postgresql" in asked.said
    asked.type(f"{ASKED_ABOVE + 1}\n")
    assert asked.ends() == 0
    [running] = map(json.loads, run("ops", "list", "--state", "running", "--json").stdout.splitlines())
    assert running["total"] == ASKED_ABOVE + 1
    run("ops", "cancel", running["id"])


def test_ctrl_c_leaves_and_the_operation_goes_on(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    watching = Typed(url, "outbox", "replay", "--id", effect_id, "--reason", "x", "--execute")
    watching.says("0/1")
    os.kill(watching.process.pid, signal.SIGINT)
    assert watching.ends() == 130
    assert "the relay goes on with it" in " ".join(watching.said.split())
    [running] = map(json.loads, run("ops", "list", "--state", "running", "--json").stdout.splitlines())
    assert running["waiting"] == 1
    run("ops", "cancel", running["id"])


def test_each_exit_code_means_what_the_help_says(run: Run, url: str, key: str, shell: Shell) -> None:
    park(url, effect_id := accepted(run, key))
    started = ("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute")
    codes: dict[int, subprocess.CompletedProcess[str]] = {
        0: run("outbox", "stats"),
        1: run("doctor", stripe_api_key="sk_test_x"),
        2: run("outbox", "replay"),
        3: run("outbox", "replay", "--id", NOBODY),
        5: run(*started),
        6: charge(run, key, amount="17"),
        7: shell.run("outbox", "stats", settings={"database_url": "postgresql://x:y@127.0.0.1:1/none"}),
        4: run(*started, "--yes"),
    }
    assert {code: done.returncode for code, done in codes.items()} == {code: code for code in codes}


def test_where_a_write_goes_is_said_before_it_is_done_and_a_password_never(run: Run, url: str, key: str) -> None:
    park(url, effect_id := accepted(run, key))
    words = ("outbox", "replay", "--id", effect_id, "--reason", "x", "--execute", "--yes", "--no-wait")
    done = run(*words)
    database = url.rpartition("/")[2].partition("?")[0]
    assert f"/{database}" in done.stderr.splitlines()[0]
    assert "***" in done.stderr
    live = run(
        "ops", "cancel", done.stdout.split("operation")[1].split()[0], stripe_api_key="sk_live_x", allow_live="true"
    )
    assert "LIVE MODE" in live.stderr


def test_quiet_says_only_what_went_wrong(run: Run, key: str) -> None:
    accepted(run, key)
    assert run("outbox", "stats").stderr
    done = run("--quiet", "outbox", "stats")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert "effect's id is a UUID" in run("-q", "effects", "show", "nonsense").stderr


@pytest.mark.parametrize("how", ["--no-color", "NO_COLOR"])
def test_a_terminal_without_colour_gets_none(url: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "NO_COLOR":
        monkeypatch.setenv("NO_COLOR", "1")
    done = Typed(url, *([how] if how.startswith("--") else []), "doctor")
    done.ends()
    assert "database" in done.said
    assert "\x1b[3" not in done.said


@pytest.mark.parametrize(("wrong", "right"), [("outbx", "outbox"), ("outbox repaly", "replay"), ("ops lst", "list")])
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(run: Run, wrong: str, right: str) -> None:
    done = run(*wrong.split())
    assert done.returncode == 2
    assert f"Did you mean '{right}'" in done.stderr


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("bash", {"COMP_WORDS": "counterfoil outbox re", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "counterfoil outbox re"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "counterfoil outbox re", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_completion_knows_the_commands(name: str, asked: dict[str, str]) -> None:
    def told(**more: str) -> str:
        line = [sys.executable, "-m", "service"]
        return subprocess.run(line, env={**environment(), **more}, capture_output=True, text=True, check=False).stdout

    assert "replay" in told(_COUNTERFOIL_COMPLETE=f"complete_{name}", **asked)
    assert "complete" in told(_COUNTERFOIL_COMPLETE=f"source_{name}")


def test_bash_really_completes_with_the_script_that_it_is_given(tmp_path: Path) -> None:
    command = tmp_path / "counterfoil"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service "$@"\n')
    command.chmod(0o755)
    script = (
        f'PATH="{tmp_path}:$PATH"\n'
        'eval "$(_COUNTERFOIL_COMPLETE=source_bash counterfoil)"\n'
        "COMP_WORDS=(counterfoil outbox unp); COMP_CWORD=2\n"
        '_counterfoil_completion counterfoil unp outbox; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["unpark"], done.stderr


def test_top_without_a_terminal_looks_once_and_as_json_goes_on_until_it_is_left(run: Run, url: str, key: str) -> None:
    accepted(run, key)
    assert run("top").returncode == 0
    one: dict[str, Any] = json.loads(run("top", "--once", "--json").stdout)
    assert {"causes", "groups", "lanes", "operations", "next"} <= set(one)
    live = Typed(url, "top", "--every", "0.2")
    live.says("Not settled")
    live.type("\x03")
    os.kill(live.process.pid, signal.SIGINT)
    assert live.ends() in (0, 130)
    going = subprocess.Popen(
        [sys.executable, "-m", "service", "top", "--json", "--every", "0.2"],
        env=environment(database_url=url), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert going.stdout
    assert {"next"} <= set(json.loads(going.stdout.readline())) & set(json.loads(going.stdout.readline()))
    going.send_signal(signal.SIGINT)
    assert going.wait(30) == 130
    going.stdout.close()
