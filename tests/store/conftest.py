"""Store tests read the books from outside; the invariants are checked after each test, whatever it did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.books import Books, opened


@pytest.fixture
def books(database: str) -> Iterator[Books]:
    with opened(database) as found:
        yield found
