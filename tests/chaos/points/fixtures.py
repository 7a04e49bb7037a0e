"""The compiled shim, a nursery whose programs have it, and the house of one test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.points.block import NO_COMPILER, PATH_VARIABLE, Block, build, compiler
from tests.contract.fake_servers import FakeServer
from tests.flow.nursery import Nursery
from tests.flow.system import System
from tests.flow.wires import Wire


@dataclass
class Armoury:
    """A nursery with the shim loaded, and the block that tells its programs what to do."""

    nursery: Nursery
    block: Block


@pytest.fixture(scope="session")
def armoury(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armoury]:
    with arming(tmp_path_factory.mktemp("points")) as made:
        yield made


@contextmanager
def arming(folder: Path, *libraries: str) -> Iterator[Armoury]:
    """The shim, compiled, in a nursery whose programs find these libraries imported as well."""
    if compiler() is None:
        pytest.skip(NO_COMPILER)
    block = Block(folder / "block")
    own = {"LD_PRELOAD": str(build(folder)), PATH_VARIABLE: str(block.path)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        nursery = Nursery(*libraries)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    yield Armoury(nursery, block)
    nursery.close()
    block.close()


@pytest.fixture
def armed_system(
    database: str, wire: Wire, stripe_fake: FakeServer, mail_fake: FakeServer, armoury: Armoury, tmp_path: Path
) -> Iterator[System]:
    """As `system`, every program of it with the shim inside."""
    yield from armed(System(database, wire, stripe_fake, mail_fake, armoury.nursery, tmp_path), armoury)


def armed(made: System, armoury: Armoury) -> Iterator[System]:
    """Until the test is over; then nobody is hit any more."""
    try:
        yield made
    finally:
        armoury.block.disarm()
        made.close()
