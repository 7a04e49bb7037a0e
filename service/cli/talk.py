"""Data goes to stdout, talk to stderr. Data is a table on a terminal, tab-separated in a pipe, JSON with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one a line for a list.")]


def emit(value: Any) -> None:
    """One JSON document on one line of stdout."""
    sys.stdout.write(json.dumps(value, default=_plain, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(sentence: str, *, style: str | None = None) -> None:
    """One sentence to the person at the terminal."""
    from rich.console import Console

    Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(sentence, style=style)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> int:
    """Print rows, all their fields as JSON or the named columns for people; returns how many there were."""
    found = list(rows)
    if as_json:
        for row in found:
            emit(row)
    elif sys.stdout.isatty():
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


def _draw(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(text(row.get(column))) for column in columns))
    Console().print(drawn)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return dict(value) if isinstance(value, Mapping) else str(value)
