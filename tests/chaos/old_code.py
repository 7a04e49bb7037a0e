"""The code of an earlier release out of the history, to run beside today's: old workers on new tables, old messages.

A release is a commit; 0.1.0 is the last one before the second migration. Programs of it find their tree first on their
path. Where there is no history (a tarball, a shallow clone) whoever asks is skipped, and told why.
"""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.flow.program import Program
from tests.flow.system import System

ROOT = Path(__file__).resolve().parents[2]
SECOND_MIGRATION = "migrations/versions/0002_linked_effects.py"
HEAD_OF_0_1_0 = "0001"
NO_HISTORY = (
    "the code of 0.1.0 is in the git history, which is not here: git clone without --depth, then run this again"
)
_PARTS = ("service", "tasks", "migrations")
# Where the libraries' process forks, it wants one of these on each path; this one says which code is running.
_SAYS_WHERE = """
import service
print("code:", service.__file__, flush=True)
"""


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(NO_HISTORY)


def commit_of_0_1_0() -> str:
    """The parent of the commit that brought the second migration."""
    brought = _git("log", "--diff-filter=A", "--format=%H", "--", SECOND_MIGRATION).decode().split()
    if not brought:
        pytest.skip(NO_HISTORY)
    return _git("rev-parse", "--verify", f"{brought[-1]}^").decode().strip()


@pytest.fixture(scope="session")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of 0.1.0."""
    tree = tmp_path_factory.mktemp("0.1.0")
    packed = _git("archive", "--format=tar", commit_of_0_1_0(), *_PARTS)
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(tree, filter="data")
    (tree / "sitecustomize.py").write_text(_SAYS_WHERE)
    return tree


def is_old(program: Program, tree: Path) -> bool:
    """Whether it runs the code of that tree, by its own word."""
    return f"code: {tree}" in program.text()


class Old:
    """Programs of 0.1.0 in a system of today."""

    def __init__(self, system: System, tree: Path) -> None:
        self._system = system
        self._tree = tree

    def worker(self, pool: str = "threads", concurrency: int = 2) -> Program:
        worker = self._system.ready(self._system.worker(pool, concurrency=concurrency, PYTHONPATH=str(self._tree)))
        assert is_old(worker, self._tree)
        return worker

    def relay(self) -> Program:
        relay = self._system.start("relay-0.1.0", ["service", "relay"], PYTHONPATH=str(self._tree))
        self._system.until(lambda: is_old(relay, self._tree), "the relay of 0.1.0 runs")
        return relay

    def caller(self, module: str, *arguments: str) -> Program:
        """`python -m MODULE ARGUMENTS`, a module of the tests that imports `tasks` of 0.1.0."""
        return self._system.start("caller-0.1.0", [module, *arguments], PYTHONPATH=str(self._tree))
