"""The answers as a table: for a terminal, and for the two pages that show it."""

from __future__ import annotations

import platform
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from redis import Redis

from benchmarks.peers.environment import ROOT
from benchmarks.peers.systems import System
from benchmarks.peers.trials import Result
from service.embedded.servers import Servers

PAGES = (ROOT / "docs" / "peers.md", ROOT / "README.md")
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
HEADINGS = (
    "", "version", "no key", "its own key", "key forgotten", "the library says", "after",
    "same key, other amount", "zombie past its lease",
)  # fmt: skip
NONE = "–"


@dataclass
class Row:
    """One system and all it showed, by question and column."""

    system: System
    versions: dict[str, str]
    results: dict[tuple[str, str], list[Result]] = field(default_factory=dict)
    broken: str = ""
    """Why there is no complete answer."""

    def as_json(self) -> dict[str, Any]:
        """Every trial."""
        trials = [
            {"question": question, "column": mode, **asdict(result)}
            for (question, mode), results in self.results.items()
            for result in results
        ]
        who = {"name": self.system.name, "versions": self.versions, "says": self.system.says}
        return {**who, "broken": self.broken, "trials": trials}

    def cells(self) -> list[str]:
        """The row of the table."""
        version = next(iter(self.versions.values()), "")
        head = [self.system.title, version or "?"]
        if self.broken:
            return [*head, self.broken, *[NONE] * (len(HEADINGS) - 3)]
        modes = ("unkeyed", "keyed", "forgotten")
        crashes = [result for mode in modes for result in self.results.get(("crash", mode), [])]
        return [
            *head,
            *[_effects(self.results.get(("crash", mode))) for mode in modes],
            _one_of({_end(result) for result in crashes}),
            _seconds(crashes),
            _in_turn([_told(self.results.get(("other_amount", mode))) for mode in modes]),
            _in_turn([_zombies(self.results.get(("zombie", mode))) for mode in modes[:2]]),
        ]


def meta(servers: Servers, trials: int, command: str) -> dict[str, Any]:
    """When, where and on what."""
    with psycopg.connect(str(servers.addresses.database_url)) as db:
        shown = db.execute("show server_version").fetchone()
    with Redis.from_url(str(servers.addresses.broker_url)) as client:
        info: dict[str, Any] = client.info("server")  # type: ignore[assignment]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "postgres": str(shown[0]).split()[0] if shown else "?",
        "valkey": str(info.get("valkey_version") or info["redis_version"]),
        "trials": trials,
        "command": command,
    }


def markdown(rows: list[Row], about: dict[str, Any]) -> str:
    """The table with its caption."""
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *[f"| {' | '.join(row.cells())} |" for row in rows],
    ]
    return "\n".join([*lines, "", _caption(about)])


def terminal(rows: list[Row], about: dict[str, Any]) -> str:
    """The same with spaces."""
    table = [list(HEADINGS), *[[_plain(cell) for cell in row.cells()] for row in rows]]
    wide = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() for line in table]
    broken = [f"{row.system.name}: {row.broken}" for row in rows if row.broken]
    return "\n".join([*told, "", _plain(_caption(about)), *broken])


def write(table: str) -> None:
    """Put it between the markers of the pages that have them."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if BEGIN not in text or END not in text:
            print(f"{page.relative_to(ROOT)} has no {BEGIN} … {END}: left as it is")
            continue
        new = re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL)
        page.write_text(new, encoding="utf-8")


def _caption(about: dict[str, Any]) -> str:
    return (
        f"{about['date']}, Python {about['python']}, PostgreSQL {about['postgres']}, Valkey {about['valkey']}, "
        f"{about['trials']} trials a cell; `{about['command']}`."
    )


def _effects(results: list[Result] | None) -> str:
    """How many charges: one number where all trials agree."""
    if not results:
        return NONE
    return _one_of({f"**{r.effects}**" if r.effects != 1 else "1" for r in results})


def _zombies(results: list[Result] | None) -> str:
    """How many charges, and whether anybody took over at all."""
    if not results:
        return NONE
    return _one_of({_effects([result]) + _aside(result) for result in results})


def _aside(result: Result) -> str:
    """What else is to be said of a zombie's trial."""
    if not result.taken_over:
        return " (nobody took over)"
    return "" if result.end == "finished" else f" ({_end(result)})"


def _end(result: Result) -> str:
    """`finished`, or the library's own word for what it is not."""
    return {"finished": "finished", "failed": f"failed (`{result.word}`)"}.get(result.end, f"stuck (`{result.word}`)")


def _seconds(results: list[Result]) -> str:
    """The span from crash to end."""
    known = sorted(result.seconds for result in results if result.seconds is not None)
    if not known:
        return NONE
    low, high = f"{known[0]:.0f}", f"{known[-1]:.0f}"
    return f"{low} s" if low == high else f"{low}–{high} s"


def _told(results: list[Result] | None) -> str:
    """What became of the second amount: how many charges in all, and what its caller was told."""
    if not results:
        return NONE
    words = Counter(_reply(result) for result in results)
    return _one_of(set(words))


def _reply(result: Result) -> str:
    number = f"**{result.effects}**" if result.effects != 1 else "1"
    if result.told.startswith("refused"):
        return f"{number}, {result.told.replace('refused: ', 'refused (`')}`)"
    if result.effects != 1:
        return number
    return f"{number}, refused by the provider" if result.asked > 1 else f"{number}, silently the first"


def _in_turn(cells: list[str]) -> str:
    """One cell for all columns; what is the same in all of them is said once."""
    return cells[0] if len(set(cells)) == 1 else " · ".join(cells)


def _one_of(cells: set[str]) -> str:
    return " or ".join(sorted(cells)) if cells else NONE


def _plain(text: str) -> str:
    return re.sub(r"\*\*|`", "", text)
