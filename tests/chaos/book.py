"""What a chaos run has done, line by line: a test says what it broke and how often, the report adds it up.

One JSON object a line, appended to the file that COUNTERFOIL_TEST_CHAOS_BOOK names; without that variable nothing is kept.
A layer that wrote nothing has proven nothing: `python -m tests.chaos report` fails it (reliability is counted, not felt).
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Literal

VARIABLE = "COUNTERFOIL_TEST_CHAOS_BOOK"
Layer = Literal[
    "crash points", "crash pairs", "pause points", "wire points", "server faults", "message faults", "pools",
    "upgrade", "simulation", "guards", "storm", "soak", "restore", "bad input",
]  # fmt: skip


def record(layer: Layer, subject: str, *, broker: str = "", seed: int | None = None, **counts: int) -> None:
    """One line: `record("wire points", "relay-postgres torn", broker="valkey", seed=7, points=31, intents=33)`.

    Counts that are added up over all lines of a layer: `points`, `pairs`, `seeds`, `kills`, `pauses`, `intents`,
    `violations`, and `fault_<kind>` / `branch_<name>` for what must not have been vacuous.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line: dict[str, Any] = {"layer": layer, "subject": subject, "broker": broker, "seed": seed, "counts": counts}
    with Path(path).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several test processes write into one book
        file.write(json.dumps(line) + "\n")
