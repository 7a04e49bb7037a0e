"""`counterfoil top`: a live, read-only screen of what is under way: causes, failures, lanes and running operations."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import stats, talk
from service.cli.ground import ground
from service.core.errors import DependencyUnavailable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

EXAMPLES = (
    "counterfoil top",
    "counterfoil top --every 1",
    "counterfoil top --json --every 10 >> /var/log/counterfoil-top.jsonl",
)


def top(
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and leave, as without a terminal.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Watch the outbox live: why things wait, what fails, lanes, operations. Ctrl-C leaves. Reads only."""
    settings = ground()
    if as_json:
        while True:
            talk.emit(_looked(settings.lane_names))
            if once:
                return
            sleep(every)
    if once or not sys.stdout.isatty():
        from rich.console import Console

        Console().print(_screen(_looked(settings.lane_names)))
        return
    _live(settings.lane_names, every)


def _live(lane_names: tuple[str, ...], every: float) -> None:
    from rich.live import Live

    try:
        with Live(_screen(_looked(lane_names)), screen=True, auto_refresh=False) as live:
            while True:
                sleep(every)
                try:
                    live.update(_screen(_looked(lane_names)), refresh=True)
                except DependencyUnavailable as error:  # an incident is when this is looked at: go on when it is back
                    live.update(str(error), refresh=True)
    except KeyboardInterrupt:
        return


def _looked(lane_names: tuple[str, ...]) -> dict[str, Any]:
    from service.engine import lanes, operations

    running = [*operations.listed(state="running", limit=10), *operations.listed(state="paused", limit=10)]
    return {
        **stats.looked(),
        "lanes": [asdict(lane) for lane in lanes.listed(lane_names)],
        "operations": [one.document() for one in running],
    }


def _screen(found: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    causes = [{**row, "oldest for": stats.age(row["oldest_seconds"])} for row in found["causes"]]
    lanes = [
        {
            **lane,
            "in flight": lane["in_flight"],
            "paused": lane["pause_reason"],
            "oldest for": stats.age(lane["oldest_seconds"]),
        }
        for lane in found["lanes"]
    ]
    operations = [
        {**one, "progress": f"{one['done'] + sum(one['skipped'].values())} of {one['total']}"}
        for one in found["operations"]
    ]
    parts: list[RenderableType] = [
        _table("Not settled", causes, ("cause", "count", "oldest for", "oldest")),
        _table("Failing alike", found["groups"], ("id", "count", "kind", "state", "reason", "error", "code")),
        _table("Lanes", lanes, ("name", "waiting", "held", "in flight", "parked", "oldest for", "paused")),
        _table("Operations", operations, ("id", "verb", "state", "progress", "ended", "reason")),
        Text(found["next"]),
    ]
    return Group(*parts)


def _table(title: str, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(talk.text(row.get(column))) for column in columns))
    if not rows:
        drawn.add_row(*("-" for _ in columns))
    return drawn
