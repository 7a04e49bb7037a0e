"""The files that take long begin first, so that no process of `make test` waits at the end for one begun last.

A pytest plugin (`-p tests.order`), together with `--dist loadfile --no-loadscope-reorder`; else those with many tests would be
first. Within a file, and among the files that are not here, the order is the seed's.
"""

from __future__ import annotations

import pytest

# Seconds, roughly; all that is not here takes half a minute at most.
_SECONDS = {
    "tests/faults/test_fault_matrix.py": 100,
    "tests/model/test_model.py": 95,
    "tests/flow/test_crash_windows.py": 60,
    "tests/flow/test_pools.py": 50,
    "tests/flow/test_broker.py": 50,
    "tests/flow/test_cli.py": 50,
    "tests/flow/test_embedded.py": 40,
    "tests/flow/test_cli_programs.py": 35,
    "tests/migrations/test_guards.py": 35,
    "tests/flow/test_provider_limits.py": 35,
}


@pytest.hookimpl(trylast=True)  # after the seed's order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _SECONDS.get(item.nodeid.partition("::")[0], 0), reverse=True)
