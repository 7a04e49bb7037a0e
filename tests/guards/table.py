"""The table guard × layer: what was seen is kept in a file, the page is written from registry and file.

A row without red is a guard that nobody misses; it fails. Cells that were not run anew keep what was seen last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.guards.layers import FAST, GREEN, LAYERS, NONE, RED, ROOT, Cell, nodes
from tests.guards.registry import Guard

PAGE = ROOT / "docs" / "guards.md"
SEEN = Path(__file__).with_name("seen.json")
_BEGIN, _END = "<!-- guards: begin -->", "<!-- guards: end -->"
Table = dict[str, dict[str, Cell]]


def seen() -> Table:
    """What earlier runs have seen."""
    if not SEEN.exists():
        return {}
    kept = json.loads(SEEN.read_text())
    return {guard: {layer: Cell(*cell) for layer, cell in cells.items()} for guard, cells in kept.items()}


def keep(table: Table) -> None:
    """Write down what was seen."""
    plain = {g: {layer: [c.word, c.sentence] for layer, c in sorted(cells.items())} for g, cells in table.items()}
    SEEN.write_text(json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def merged(before: Table, now: Mapping[str, Mapping[str, Cell]], guards: Iterable[Guard]) -> Table:
    """What is known after a run: rows of the registry only."""
    return {guard.name: {**before.get(guard.name, {}), **now.get(guard.name, {})} for guard in guards}


def all_green(table: Table, guards: Iterable[Guard], layers: Iterable[str] = LAYERS) -> list[str]:
    """The rows without red: guards that nobody misses."""
    asked = tuple(layers)
    return [
        g.name for g in guards if not any(table.get(g.name, {}).get(name, Cell(NONE)).word == RED for name in asked)
    ]


def unseen_in_fast_layers(table: Table, guards: Iterable[Guard]) -> list[str]:
    """The rows that only processes find: each must have a fast cell as well."""
    return all_green(table, guards, FAST)


def rows(table: Table, guards: Iterable[Guard]) -> str:
    """The rows as Markdown: a table to look at, and the sentences below it."""
    listed = list(guards)
    head = f"| guard | keeps | {' | '.join(LAYERS)} |"
    lines = [head, "|---" * (2 + len(LAYERS)) + "|"]
    lines += [_row(guard, table.get(guard.name, {})) for guard in listed]
    lines += ["", "## What broke", ""]
    for guard in listed:
        lines += [_told(guard, table.get(guard.name, {})), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(guard: Guard, cells: Mapping[str, Cell]) -> str:
    words = [_word(guard, layer, cells.get(layer, Cell(NONE))) for layer in LAYERS]
    return f"| {guard.name} | {guard.keeps or NONE} | {' | '.join(words)} |"


def _word(guard: Guard, layer: str, cell: Cell) -> str:
    if not nodes(layer, guard):
        return NONE
    if cell.word == RED:
        return "**red**¹" if layer == "story" and guard.covered_by else "**red**"
    return cell.word if cell.word == GREEN else NONE


def _told(guard: Guard, cells: Mapping[str, Cell]) -> str:
    covered = (
        f" Covered by {guard.covered_by}: alone it may be missing, together they may not." if guard.covered_by else ""
    )
    where = f" `{guard.where}`" if guard.where else ""
    out = f" (taken out by `{'`, `'.join((*guard.out, *guard.controls))}`)" if guard.out or guard.controls else ""
    lines = [f"**{guard.name}**: {guard.about}.{where}{out}.{covered}".replace("..", ".")]
    lines += [f"- {layer}: {cells[layer].sentence}" for layer in LAYERS if cells.get(layer, Cell(NONE)).word == RED]
    return "\n".join(lines)


def written(page: str, body: str) -> str:
    """The page with its generated part replaced."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{body}\n{_END}{after}"
