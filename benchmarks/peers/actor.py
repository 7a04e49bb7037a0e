"""One process of one system: `python -m benchmarks.peers.actor ADAPTER work|talk`, in that system's own environment.

`talk` answers one JSON line to each JSON line: {"call": "submit", "with": [key, amount]} → {"said": …}. `work` is the
worker, and no process of ours outlives the run: SIGALRM ends it at the latest.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from importlib import metadata
from typing import Any

LIFE_SECONDS_MAX = 600
"""Longer than any trial, so that it never decides one."""


def answer(adapter: Any, call: str, arguments: list[Any]) -> Any:
    """One call to the adapter."""
    if call == "versions":
        return {name: metadata.version(name) for name in arguments}
    if call == "state":
        word = str(adapter.state(*arguments))
        return [adapter.ENDS.get(word, "open"), word]
    return getattr(adapter, call)(*arguments)


def talk(adapter: Any) -> None:
    """Answer until the other side closes. What libraries print goes to the log, not between the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"said": answer(adapter, asked["call"], asked["with"])}
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer to the caller
            told = {"raised": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(told), file=answers, flush=True)


def main() -> None:
    """Read the command line and play the part."""
    name, part = sys.argv[1:]
    signal.alarm(LIFE_SECONDS_MAX)
    adapter = importlib.import_module(f"benchmarks.peers.adapters.{name}")
    if part == "work":
        adapter.work()
    else:
        talk(adapter)


if __name__ == "__main__":
    main()
