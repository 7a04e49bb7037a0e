"""What a terminal can send that is no text is refused before any command looks at it."""

from __future__ import annotations

import subprocess
import sys


def test_an_argument_that_is_no_text_is_refused_by_its_place() -> None:
    command = [sys.executable, "-c", "from service.cli import main; main()", "outbox", "replay", b"--kind=\xff"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument 3 is not valid UTF-8" in done.stderr
    assert "bug" not in done.stderr
