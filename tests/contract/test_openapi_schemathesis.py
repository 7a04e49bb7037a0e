"""A machine that knows nothing but the OpenAPI document finds no answer that the document does not promise.

It sends what the document allows (which must be taken), what it forbids (which must be refused), leaves things out,
tries other methods, and reads every answer, header and problem against its schema: a real server, a real database.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.engine import keys
from tests.flow.doors import Door, served
from tests.server import ROOT

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def door(database: str) -> Iterator[Door]:
    """The API as it stands in production: it asks for keys."""
    with served(database, api_auth="keys", stripe_webhook_secret="whsec_of_the_tests") as running:
        yield running


@pytest.fixture
def token(database: str) -> str:
    assert database
    return keys.create(tenant="shop", name="st", scopes=sorted(keys.SCOPES), actor="test", door="cli").secret


def look(door: Door, token: str, folder: Path, seed: int, *options: str) -> None:
    url = f"http://{door.host}:{door.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", url, "--no-color"]
    found = subprocess.run(
        [*command, "--seed", str(seed), "--header", f"Authorization: Bearer {token}", *options],
        cwd=folder,  # it keeps notes beside itself
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[found.stdout.find("= FAILURES") :] + found.stderr
    assert '"request_bug"' not in "".join(door.lines)


def test_every_answer_is_one_that_the_document_promises(door: Door, token: str, tmp_path: Path, seed: int) -> None:
    look(door, token, tmp_path, seed, "--phases", "examples,fuzzing", "--max-examples", "3")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing", "stateful"])
def test_nor_after_thousands_of_requests(door: Door, token: str, tmp_path: Path, seed: int, phases: str) -> None:
    look(door, token, tmp_path, seed, "--phases", phases, "--max-examples", "100")
