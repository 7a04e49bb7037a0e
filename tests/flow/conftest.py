"""Servers of the run and the system of one test.

`system` runs on Valkey; a test marked with `@on_both_brokers` runs on RabbitMQ as well, or says why it does not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.fake_servers import FakeServer, running
from tests.flow import brokers
from tests.flow.nursery import Nursery
from tests.flow.system import System
from tests.flow.wires import RabbitWire, ValkeyWire, Wire


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def stripe_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("stripe", tmp_path_factory.mktemp("stripe")) as fake:
        yield fake


@pytest.fixture(scope="session")
def mail_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    with running("mail", tmp_path_factory.mktemp("mail")) as fake:
        yield fake


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[brokers.Valkey]:
    with brokers.valkey() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    if shutil.which("rabbitmq-server") is None:
        pytest.skip(brokers.NO_RABBIT)
    with brokers.rabbitmq() as url:
        yield url


@pytest.fixture
def valkey_wire(valkey_server: brokers.Valkey) -> ValkeyWire:
    wire = ValkeyWire(valkey_server)
    wire.empty()
    return wire


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Wire:
    """The broker of this test: Valkey unless it is parametrized with another name."""
    name = getattr(request, "param", "valkey")
    if name == "valkey":
        return request.getfixturevalue("valkey_wire")  # type: ignore[no-any-return]
    wire = RabbitWire(request.getfixturevalue("rabbitmq_url"))
    wire.empty()
    return wire


@pytest.fixture
def system(
    database: str, wire: Wire, stripe_fake: FakeServer, mail_fake: FakeServer, nursery: Nursery, tmp_path: Path
) -> Iterator[System]:
    made = System(database, wire, stripe_fake, mail_fake, nursery, tmp_path)
    try:
        yield made
    finally:
        made.close()
