"""What the command's tests share: a database for the module, a shell, and the command as a function."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.flow.doors import VISA, Shell
from tests.server import Server

ME = f"{getpass.getuser()}@{socket.gethostname().partition('.')[0]}"  # who types here, as the books name him
_keys = count(1)


@pytest.fixture(scope="module")
def url(postgres: Server, template: str) -> Iterator[str]:
    with postgres.database(template=template) as name:
        yield postgres.url_of(name)


@pytest.fixture
def key() -> str:
    return f"cli:{next(_keys)}"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    running = Shell(tmp_path_factory.mktemp("shell"))
    yield running
    running.close()


@pytest.fixture
def run(url: str, shell: Shell) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command on the module's database; no word of it may be a traceback or a card number."""

    def call(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        done = shell.run(*arguments, settings={"database_url": url, **settings}, stdin=stdin)
        assert "Traceback" not in done.stdout + done.stderr
        assert VISA not in done.stdout + done.stderr
        return done

    return call


Run = Callable[..., subprocess.CompletedProcess[str]]


def charge(run: Run, name: str, *more: str, **changes: str) -> subprocess.CompletedProcess[str]:
    given = {"amount": "4200", "currency": "eur", "payment-method": "pm_card_visa", "key": name, **changes}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    return run("charge", *options, *more, "--json")


def accepted(run: Run, key: str) -> str:
    return str(json.loads(charge(run, key).stdout)["id"])
