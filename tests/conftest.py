"""What every test may lean on: a real Postgres, a database of its own, no network beyond this machine, a seed to repeat.

`postgres`   one server for the whole run: embedded, or the one COUNTERFOIL_TEST_DATABASE_URL names
`database`   the URL of a migrated database of this test alone, which is also what `service` finds in this process
`seed`       a number to build randomness from, shown when the test fails; COUNTERFOIL_TEST_SEED repeats it

A test carries the name of its folder as a marker: `pytest -m store`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.guard import refuse_the_network
from tests.server import Server, embedded, external

HERE = Path(__file__).resolve().parent
FOLDERS = sorted(path.name for path in HERE.iterdir() if path.is_dir() and path.name.isidentifier())
_TEST_SETTINGS = "COUNTERFOIL_TEST_"

# Deadlines of single examples would measure the machine, not the promise; the folder of examples would be one more
# thing to clean up, and the blob that is printed instead repeats a failure on any machine.
hypothesis.settings.register_profile("counterfoil", deadline=None, print_blob=True, database=None, max_examples=60)
hypothesis.settings.load_profile("counterfoil")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control starts what stands before a `&` deaf to Ctrl-C, and every process of ours with it.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    for folder in FOLDERS:
        config.addinivalue_line("markers", f"{folder}: tests/{folder}")
    _forget_the_operator()
    # Claims keep their watermark there.
    config.add_cleanup(lambda: shutil.rmtree(Path(os.environ["COUNTERFOIL_STATE_DIR"]).parent, ignore_errors=True))
    refuse_the_network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for folder in item.path.relative_to(HERE).parts[:-1] if item.path.is_relative_to(HERE) else ():
            item.add_marker(folder)


def _forget_the_operator() -> None:
    """Settings of the person who runs the tests must not decide them, nor may a test reach that person's database."""
    for name in list(os.environ):
        if name.startswith("COUNTERFOIL_") and not name.startswith(_TEST_SETTINGS):
            del os.environ[name]
    os.environ["COUNTERFOIL_STATE_DIR"] = str(Path(tempfile.gettempdir()) / f"counterfoil-tests-{os.getpid()}" / "none")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One real Postgres 18 for the run, started on first use."""
    url = os.environ.get(f"{_TEST_SETTINGS}DATABASE_URL")
    if url:
        yield external(url)
        return
    # Not pytest's own folder: that keeps the last three runs, and a cluster is large.
    state_dir = tempfile.mkdtemp(prefix="counterfoil-tests-")
    try:
        with embedded(Path(state_dir)) as server:
            yield server
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres: Server) -> Iterator[str]:
    """The name of a migrated database nobody is connected to: copying it is twenty times quicker than migrating."""
    with postgres.database() as name:
        postgres.migrate(name)
        yield name


@pytest.fixture
def database(postgres: Server, template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A migrated, empty database; this process and the processes it starts use it. Returns its URL."""
    with postgres.database(template=template) as name:
        url = postgres.url_of(name)
        monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", url)
        forget_process_state()
        yield url
        forget_process_state()


@pytest.fixture
def settings_from(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Set settings by name for one test: `settings_from(lease=2, lanes="charge,email")` returns the new Settings."""
    from service import settings

    def choose(**values: object) -> settings.Settings:
        for name, value in values.items():
            monkeypatch.setenv(f"COUNTERFOIL_{name.upper()}", str(value))
        settings.load.cache_clear()
        return settings.load()

    yield choose
    settings.load.cache_clear()


@pytest.fixture
def seed() -> int:
    """A seed, new in each run unless COUNTERFOIL_TEST_SEED is set; pytest shows the line when the test fails."""
    chosen = int(os.environ.get(f"{_TEST_SETTINGS}SEED") or random.SystemRandom().randrange(2**32))
    print(f"{_TEST_SETTINGS}SEED={chosen}")
    return chosen


def forget_process_state() -> None:
    """Drop what a process keeps per pid: settings, the engine, the bell, executors and providers."""
    from service import settings
    from service.store import bell, database

    pid = os.getpid()
    if bell._bell_of.cache_info().currsize:
        bell._bell_of(pid).close()
    if database._engine_of.cache_info().currsize:
        for isolation in ("READ COMMITTED", "AUTOCOMMIT"):
            database._engine_of(pid, isolation).dispose()
    bell._bell_of.cache_clear()
    database._engine_of.cache_clear()
    settings.load.cache_clear()
    # Only what was loaded: importing the tasks takes a second that a test of the store need not pay.
    for module in [module for name, module in sys.modules.items() if name.startswith("tasks.")]:
        for cached in (vars(module).get("_executor"), vars(module).get("_provider")):
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
