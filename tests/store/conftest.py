"""Store tests read the books from outside; the invariants are checked after each test, whatever it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.store.books import Books, opened


@pytest.fixture
def books(database: str) -> Iterator[Books]:
    with opened(database) as found:
        yield found


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    """The log lines of this test, wherever a test before it in this process has led the log."""
    with capture_logs() as lines:
        yield lines
