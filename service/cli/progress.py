"""How far a long command is, on stderr: a moving line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from service.cli import talk

PLAIN_EVERY_SECONDS = 5.0  # seldom enough for a log, often enough that nobody takes it for dead


@contextmanager
def shown(*, silent: bool) -> Iterator[Callable[[str, int], None]]:
    """Yields what to call with a name and how many of it are done."""
    if silent:
        yield lambda _name, _done: None
    elif sys.stderr.isatty():
        with _moving() as tell:
            yield tell
    else:
        yield _plain()


@contextmanager
def _moving() -> Iterator[Callable[[str, int], None]]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {}

        def tell(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None)
            bar.update(tasks[name], completed=done)

        yield tell


def _plain() -> Callable[[str, int], None]:
    last = monotonic()

    def tell(name: str, done: int) -> None:
        nonlocal last
        if monotonic() - last >= PLAIN_EVERY_SECONDS:
            last = monotonic()
            talk.say(f"{name}: {done}")

    return tell
