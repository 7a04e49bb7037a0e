"""Each mutant that may survive says why, and speaks of a line that is still there (tests/guards/survivors.toml)."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.guards.mutation import explained

ROWS = sorted((function, change, because) for (function, change), because in explained().items())


@pytest.mark.parametrize(("function", "change", "because"), ROWS)
def test_an_explanation_speaks_of_code_that_is_there(function: str, change: str, because: str) -> None:
    assert len(because) > 20
    before = [line[2:] for line in change.splitlines() if line.startswith("- ")]
    after = [line[2:] for line in change.splitlines() if line.startswith("+ ")]
    assert before or after
    assert before != after
    source = [line.strip() for line in inspect.getsource(_thing(function)).splitlines()]
    assert set(before) <= set(source), "the code has moved on: look at it anew"


def _thing(function: str) -> object:
    """`service.core.keys.fingerprint` or `service.engine.hold.Hold.guard`."""
    parts = function.split(".")
    thing: object = importlib.import_module(".".join(parts[:3]))
    for name in parts[3:]:
        thing = getattr(thing, name)
    return thing
