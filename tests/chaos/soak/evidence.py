"""What is kept of a round: always its histories and counts; of one that got stuck or went wrong, everything there is."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.soak.installation import Installation
from tests.chaos.soak.verdict import Verdict

_TABLES = {
    "effects": "select * from effects where state not in ('succeeded', 'failed') or id = any(%(ids)s)",
    "outbox": "select * from outbox",
    "journal": "select j.* from journal j join effects e on e.id = j.effect_id where e.state not in"
    " ('succeeded', 'failed') or e.id = any(%(ids)s) order by j.effect_id, j.id",
    "connections": "select pid, state, wait_event_type, wait_event, xact_start, query from pg_stat_activity",
    "locks": "select pid, locktype, relation::regclass::text, mode, granted from pg_locks where not granted",
}
STACK_SECONDS = 20


def keep_verdict(folder: Path, verdict: Verdict, **more: Any) -> None:
    """The round in one JSON file beside the histories."""
    (folder / "verdict.json").write_text(json.dumps({**vars(verdict), **more}, indent=1, default=str))


def keep_everything(house: Installation, why: list[str]) -> Path:
    """Tables, broker counts, stacks and logs, for the one who has to find out."""
    folder = house.folder / "evidence"
    folder.mkdir(exist_ok=True)
    (folder / "why.txt").write_text("\n".join(why))
    named = [word for line in why for word in line.split() if len(word) == 36 and word.count("-") == 4]
    for name, query in _TABLES.items():
        with suppress(psycopg.Error):
            rows = house.system.sql(query.replace("%(ids)s", "cast(%s as uuid[])"), *([named] * query.count("%(ids)s")))
            (folder / f"{name}.json").write_text(json.dumps(rows, indent=1, default=str))
    with suppress(Exception):  # a broker that does not answer is part of the evidence
        waiting = {lane: house.system.wire.waiting(lane) for lane in ("charge", "email")}
        (folder / "broker.json").write_text(json.dumps({**waiting, "idle": house.system.wire.idle()}))
    for name, program in house.programs.items():
        (folder / f"{name}.log").write_text(program.text())
        if program.code is None and (spy := shutil.which("py-spy")):
            told = subprocess.run(
                [spy, "dump", "--pid", str(program.pid)],
                capture_output=True,
                text=True,
                timeout=STACK_SECONDS,
                check=False,
            )
            (folder / f"{name}.stack").write_text(told.stdout or told.stderr)
    return folder


def forget_the_rest(folder: Path) -> None:
    """A green round leaves its histories and its verdict; logs and books of an hour would be gigabytes."""
    for name in ("programs", "fake-stripe", "fake-mail"):
        shutil.rmtree(folder / name, ignore_errors=True)
