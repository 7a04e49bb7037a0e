"""Data goes to stdout, talk to stderr. Data is a table on a terminal, tab-separated in a pipe, JSON with `--json`."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a line for a list.")]

FORMS = ("table", "json", "csv", "ids")


def _form(said: str) -> str:
    if said not in FORMS:
        raise typer.BadParameter(f"one of {', '.join(FORMS)}")
    return said


Output = Annotated[
    str | None,
    typer.Option("--output", "-o", parser=_form, metavar="FORM", help="table, json (one object a line), csv or ids."),
]


COLUMN_WIDTH_MIN = 5
COLUMN_GAP = 3  # between two columns of a table, as rich draws them

_manner = {"quiet": False}
# Shortened, none of these could be copied into the next command.
_WHOLE = frozenset({"id", "effect_id", "name", "oldest", "at"})


def manner(*, quiet: bool, colour: bool) -> None:
    """How this run speaks: without its remarks on stderr, without colour. Errors and questions are always said."""
    _manner["quiet"] = quiet
    if not colour:
        os.environ["NO_COLOR"] = "1"  # rich, and whatever this process starts, know it by this name (no-color.org)


def emit(value: Any) -> None:
    """One JSON document on one line of stdout."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")  # JSON has a spelling for what cannot be written
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=plain) + "\n")
    sys.stdout.flush()


def say(sentence: str, *, style: str | None = None, must: bool = False) -> None:
    """One sentence to the person at the terminal; with --quiet only what `must` be said."""
    from rich.console import Console

    if _manner["quiet"] and not must:
        return
    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(sentence, style=style)


def table(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, output: str | None = None
) -> int:
    """Print rows, all their fields as JSON or the named columns for people; returns how many there were.

    `output` is one of FORMS: csv has the named columns with a head, ids the first of `effect_id`, `id`, `name`.
    """
    found = list(rows)
    if as_json or output == "json":
        for row in found:
            emit(row)
    elif output == "csv":
        _separate(found, columns)
    elif output == "ids":
        for row in found:
            sys.stdout.write(f"{next(row[name] for name in ('effect_id', 'id', 'name') if name in row)}\n")
    elif sys.stdout.isatty() or output == "table":
        _draw(found, columns)
    else:
        for row in found:
            sys.stdout.write("\t".join(text(row.get(column)) for column in columns) + "\n")
    return len(found)


def record(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a field a line."""
    if as_json:
        emit(row)
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value is not None:
            sys.stdout.write(f"{name:<{width}}  {text(value)}\n")


def text(value: Any) -> str:
    """A value on one line; an empty one is a dash."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping | list):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value).replace("\n", " ").replace("\t", " ")


def _separate(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        # A cell that a spreadsheet would run as a formula is text (OWASP: CSV Injection).
        cells = ["" if row.get(name) is None else text(row[name]) for name in columns]
        writer.writerow(
            [f"'{cell}" if cell[:1] in ("=", "+", "-", "@") and not _number(cell) else cell for cell in cells]
        )


def _number(cell: str) -> bool:
    return cell.lstrip("+-").replace(".", "", 1).isdigit()


def _draw(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if _needed(rows, columns) > console.width:  # rich would leave columns out, and nobody would know
        for row in rows:
            record({name: row.get(name) for name in columns}, as_json=False)
            sys.stdout.write("\n")
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        drawn.add_column(name, no_wrap=name in _WHOLE, overflow="fold", min_width=_width(rows, name))
    for row in rows:
        drawn.add_row(*(Text(text(row.get(column))) for column in columns))
    console.print(drawn)


def _needed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> int:
    """The width below which a table says less than its rows: ids whole, of anything else a few letters."""
    widths = [_width(rows, name) or COLUMN_WIDTH_MIN for name in columns]
    return sum(widths) + COLUMN_GAP * (len(columns) - 1)


def _width(rows: Sequence[Mapping[str, Any]], name: str) -> int | None:
    return max((len(text(row.get(name))) for row in rows), default=None) if name in _WHOLE else None


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)
