"""`counterfoil chaos run | report`: the chaos suite of a source checkout, from anywhere in it.

The suite kills and cuts what it has started itself, on servers of its own; it never touches a configured database.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from service.core.errors import SettingsError

EXAMPLES = (
    "counterfoil chaos run",
    "counterfoil chaos run --seed 7 tests/chaos/test_pause_points.py",
    "counterfoil chaos report --json",
)
CONTEXT = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def chaos(context: typer.Context) -> None:
    """Kill, cut, pause and repeat everything, and count at the provider what happened. Needs the source checkout."""
    checkout = _checkout()
    os.chdir(checkout)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", *(context.args or ["--help"])])  # noqa: S606


def _checkout() -> Path:
    """The folder with our tests. Raises SettingsError where only the package is installed."""
    here = Path(__file__).resolve().parents[2]
    for folder in (Path.cwd(), *Path.cwd().parents, here):
        if (folder / "tests" / "chaos" / "__main__.py").is_file():
            return folder
    raise SettingsError(
        "the chaos suite is in the source, not in the installed package: clone the repository, then `make chaos`"
    )
