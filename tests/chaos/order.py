"""The longest tests of a chaos run begin first, so that no core waits at the end for one that was begun last.

A pytest plugin (`-p tests.chaos.order`), together with `--dist load --maxschedchunk 1`: each process takes the next test
when it has ended one.
"""

from __future__ import annotations

import pytest

# Seconds of one quiet core, roughly, by a part of the name; all that is not here takes a minute at most.
_SECONDS = {
    "heir_at_any_call[blind": 230,
    "heir_at_any_call[charge-before-before": 190,
    "heir_at_any_call[charge-after-before": 170,
    "heir_at_any_call": 90,
    "a_replay_killed_at_any_call": 180,
    "while_it_drives_an_operation": 120,
    "each_layer_misses_its_guards": 150,
    "in_a_million_worlds": 130,
    "an_api_killed_at_any_call": 60,
    "chunk_of_a_link_is_broken": 80,
    "stands_still_until_its_lease": 70,
    "killed_at_any_call_of_its_main_process": 70,
    "after_a_storm": 70,
}


def seconds(nodeid: str) -> int:
    """About how long a test takes."""
    return max((cost for part, cost in _SECONDS.items() if part in nodeid), default=0)


@pytest.hookimpl(trylast=True)  # after those who draw an order, and after what is not wanted has been left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: seconds(item.nodeid), reverse=True)
