"""The lines of docs/http.md can be copied: each is run against a real server, in order, and none fails."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.doors import Door, served
from tests.server import ROOT, Server

PAGE = (Path(ROOT) / "docs" / "http.md").read_text()
HERE = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def door(postgres: Server, template: str) -> Iterator[Door]:
    with postgres.database(template=template) as name, served(postgres.url_of(name)) as running:
        yield running


def test_every_line_for_a_shell_can_be_copied(door: Door) -> None:
    lines = "\n".join(blocks("sh"))
    assert lines.count("curl ") >= 15
    script = lines.replace(HERE, f"http://{door.host}:{door.port}").replace("wait=10", "wait=0")
    head = (
        'set -euxo pipefail\ncurl() { command curl --silent --show-error --fail-with-body --max-time 30 "$@"; echo; }\n'
    )
    done = subprocess.run(["bash"], input=head + script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '"created":true' in done.stdout
    assert '"reason":"INC-1234"' in done.stdout


def test_the_python_can_be_copied(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    [block] = blocks("python")
    code = block.replace(HERE, f"http://{door.host}:{door.port}").replace("wait=10", "wait=0")
    exec(compile(code, "docs/http.md", "exec"), {})  # noqa: S102 - our own page
    told = capsys.readouterr().out
    assert "used before with another request" in told
    assert "order:20:charge 4200" in told
