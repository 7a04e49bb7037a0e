"""The floors hold: imports go down, each library has one owner, and our packages are those of this checkout."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]


@pytest.mark.parametrize("package", ["service", "tasks", "fakes", "migrations"])
def test_our_packages_come_from_this_checkout(package):
    found = importlib.import_module(package)
    assert found.__file__ is not None
    assert Path(found.__file__).resolve().parent == ROOT / package


def test_importing_the_tasks_connects_to_nothing_and_loads_no_provider_library():
    program = (
        "import sys, socket\n"
        "def refuse(event, _):\n"
        "    if event == 'socket.connect': raise SystemExit('connected')\n"
        "sys.addaudithook(refuse)\n"
        "import tasks\n"
        "print(*sorted({'fakes', 'fastapi', 'uvicorn', 'typer', 'alembic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr
