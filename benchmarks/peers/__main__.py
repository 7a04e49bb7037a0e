"""What becomes of one charge when the process that made it is killed before anybody could write it down.

    python -m benchmarks.peers [--trials 3] [--only NAME …] [--json] [--write]

Plays the same three questions with every system of `systems` and prints one table; with `--write` it also goes into
docs/peers.md and README.md, between their markers. The rules are in docs/peers.md. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.peers import environment
from benchmarks.peers.stage import VALKEY_DATABASES, Hall, Voidable, trial
from benchmarks.peers.systems import SYSTEMS, System
from benchmarks.peers.table import Row, markdown, meta, terminal, write
from benchmarks.peers.trials import MODES, QUESTIONS, Result
from service.embedded.servers import Servers

SIDE_BY_SIDE = 4
"""Trials at a time: they wait for leases most of the time."""
TRIES = 3
"""A trial that did not come about is tried again; a system that never gets there says so in the table."""


def main() -> None:
    """Read the command line, play, tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=3, help="of each question in each column")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[s.name for s in SYSTEMS], help="these systems")
    parser.add_argument("--question", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="these questions")
    parser.add_argument("--column", nargs="+", choices=MODES, default=list(MODES), help="these columns")
    parser.add_argument("--side-by-side", type=int, default=SIDE_BY_SIDE, help="trials at a time")
    parser.add_argument("--json", action="store_true", help="every trial, for a program")
    parser.add_argument("--write", action="store_true", help="put the table into docs/peers.md and README.md")
    parser.add_argument("--environment", type=Path, help="folder of the peers' environment (default: in the cache)")
    given = parser.parse_args()
    chosen = [system for system in SYSTEMS if not given.only or system.name in given.only]
    parts = (given.only, set(given.question) < set(QUESTIONS), set(given.column) < set(MODES))
    if given.write and any(parts):
        parser.error("--write wants the whole table: leave --only, --question and --column out")
    columns = [(q, m) for q in given.question for m in given.column if (q, m) != ("zombie", "forgotten")]
    python = environment.interpreter(given.environment)
    with tempfile.TemporaryDirectory(prefix="counterfoil-peers-") as folder:
        state = Path(folder)
        with Servers(state / "servers", quick=True) as servers:
            about = meta(servers, given.trials, " ".join(["python -m benchmarks.peers", *sys.argv[1:]]))
            hall = _hall(servers, python, state)
            rows = [_row(hall, system, columns * given.trials, given.side_by_side) for system in chosen]
    if given.json:
        print(json.dumps({**about, "systems": [row.as_json() for row in rows]}, indent=2))
    else:
        print(terminal(rows, about))
    if given.write:
        write(markdown(rows, about))
    sys.exit(any(row.broken for row in rows))


def _hall(servers: Servers, python: Path, state: Path) -> Hall:
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(VALKEY_DATABASES):
        free.put(number)
    addresses = servers.addresses
    return Hall(str(addresses.database_url), str(addresses.broker_url), python, state, free)


def _row(hall: Hall, system: System, trials: list[tuple[str, str]], side_by_side: int) -> Row:
    """All trials of one system."""
    python = Path(sys.executable) if system.ours else hall.peers_python
    row = Row(system, environment.versions(python, system.packages))
    if missing := [name for name, version in row.versions.items() if not version]:
        row.broken = f"not installable today: {', '.join(missing)}"
        return row
    possible = [column for column in trials if column[0] != "zombie" or system.lease]
    print(f"{system.name} …", file=sys.stderr, flush=True)

    def play(column: tuple[str, str]) -> Result | str:
        # One that does not come about three times will not the next time either: the others need not wait for it.
        got = row.broken or _once(hall, system, *column)
        row.broken = got if isinstance(got, str) else row.broken
        return got

    with ThreadPoolExecutor(side_by_side) as threads:
        asked = [(column, threads.submit(play, column)) for column in possible]
        for column, answer in asked:
            got = answer.result()
            if not isinstance(got, str):
                row.results.setdefault(column, []).append(got)
    print("  " + " | ".join(row.cells()[2:]), file=sys.stderr, flush=True)
    return row


def _once(hall: Hall, system: System, question: str, mode: str) -> Result | str:
    """One trial, or why there was none."""
    why = ""
    for _ in range(TRIES):
        try:
            with trial(hall, system, mode) as stage:
                log = stage.log
                return QUESTIONS[question](stage)
        except (Voidable, RuntimeError) as error:
            why = f"{question}/{mode}: {error}"
            print(f"  {system.name} {why}", file=sys.stderr, flush=True)
            _show(log)
        except Exception:  # noqa: BLE001 - one system's trouble must not take the table with it
            why = f"{question}/{mode}: {traceback.format_exc(limit=-1).splitlines()[-1]}"
            print(f"  {system.name} {traceback.format_exc()}", file=sys.stderr, flush=True)
    return why


def _show(log: Path, lines: int = 15) -> None:
    """The end of what the processes of a failed trial said."""
    if log.exists():
        print("\n".join(log.read_text(errors="replace").splitlines()[-lines:]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
