"""Fakes of this folder alone: their clocks run ahead by weeks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.fake_servers import FakeServer, running
from tests.faults.stage import Stage
from tests.store.books import opened


@pytest.fixture(scope="session")
def stripe_ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture(scope="session")
def mail_ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("mail", tmp_path_factory.mktemp("mail")) as fake:
        yield fake


@pytest.fixture
def stage(database: str, stripe_ahead: FakeServer, mail_ahead: FakeServer) -> Iterator[Stage]:
    with opened(database) as books:
        yield Stage(books, stripe_ahead, mail_ahead)
        stripe_ahead.reset()
        mail_ahead.reset()
