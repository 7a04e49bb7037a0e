"""A guard that a chaos run has missed is counted: each test that takes one out, when it has seen the harm.

A pytest plugin (`-p tests.chaos.controls`); in a run with several processes it is theirs.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.chaos.book import record
from tests.guards.layers import extras, nodes
from tests.guards.registry import GUARDS

_CELLS = {
    node: guard.name for guard in (*GUARDS, *extras()) for layer in ("flow", "chaos") for node in nodes(layer, guard)
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    guard = _CELLS.get(item.nodeid) or _CELLS.get(item.nodeid.partition("[")[0])
    if guard and report.when == "call" and report.passed:
        record("guards", f"{guard}: {item.name}", points=1)
    return report
