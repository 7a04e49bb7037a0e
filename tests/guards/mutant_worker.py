"""Tries mutants one after another: each in a fork that has imported everything and has a migrated database to copy.

Started in a tree that mutmut has laid out; reads a line of JSON for each mutant from its standard input, and answers with
its fate. What a mutant breaks dies with its fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import AbstractContextManager
from time import monotonic, sleep

import pytest

from tests.server import Server, external

LOOK_SECONDS = 0.02
_OPTIONS = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
# Imported before the fork, so pytest's assertions in them are plain; they fail as well as any other.
_OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


def fate(mutant: str, tests: list[str], seconds: float) -> str:
    """`killed`, `hung` or `survived`."""
    child = os.fork()
    if child == 0:
        _become(mutant, tests)
    until = monotonic() + seconds
    while monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _end(child)
            return "killed" if os.waitstatus_to_exitcode(status) else "survived"
        sleep(LOOK_SECONDS)
    _end(child)
    os.waitpid(child, 0)
    return "hung"


def _become(mutant: str, tests: list[str]) -> None:
    os.setsid()
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    os.environ["MUTANT_UNDER_TEST"] = mutant
    code = 1
    try:
        code = int(pytest.main([*_OPTIONS, *tests]))
    finally:
        os._exit(code)


def _end(child: int) -> None:
    """Whatever the tests have started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return


def _prepare(server: Server, name: str) -> None:
    """Databases are copies of this one; nobody needs to migrate again."""
    honest = Server.database

    def database(self: Server, *, template: str | None = None) -> AbstractContextManager[str]:
        return honest(self, template=template or name)

    Server.database = database  # type: ignore[method-assign]
    Server.migrate = lambda *_, **__: None  # type: ignore[method-assign]
    assert server


def main() -> None:
    """Answer until nobody asks any more."""
    import tasks  # noqa: F401 - what every fork would import
    import tests.conftest
    import tests.store.conftest  # noqa: F401

    server = external(os.environ["COUNTERFOIL_TEST_DATABASE_URL"])
    with server.database() as name:
        server.migrate(name)
        _prepare(server, name)
        for line in sys.stdin:
            asked = json.loads(line)
            print(fate(asked["mutant"], asked["tests"], asked["seconds"]), flush=True)


if __name__ == "__main__":
    main()
