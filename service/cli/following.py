"""Watching an operation from a terminal: a bar while it runs, one line when it ends; leaving changes nothing."""

from __future__ import annotations

import sys
from time import monotonic, sleep
from typing import Any, Self

import typer

from service.cli import exits, talk
from service.core.operation import Progress

LOOK_SECONDS = 0.25
SILENT_SECONDS = 5.0  # an operation that no relay has looked after for so long says so
ENDED = ("done", "stopped", "cancelled")
TROUBLE = ("failed", "parked", "unknown")


def brief(found: Progress) -> dict[str, Any]:
    """What a person or script needs of it."""
    said = found.document()
    names = ("state", "total", "waiting", "done", "ended", "stop_reason")
    return {**{name: said[name] for name in names}, "skipped_since": dict(found.skipped)}


def exit_code(found: Progress, *, waited: bool, more: bool) -> int:
    """0 all of it is done and well, or it was only to be started; 4 otherwise."""
    if not waited:
        return exits.DONE
    trouble = any(found.ended.get(name) for name in TROUBLE) and found.verb == "replay"
    whole = found.state == "done" and not found.skipped and not trouble and not more
    return exits.DONE if whole else exits.PARTLY_DONE


def next_command(found: Progress) -> str:
    """The one thing to do now."""
    if found.state in ("running", "paused", "planned"):
        return f"watch it: counterfoil ops watch {found.id}"
    trouble = found.verb == "replay" and any(found.ended.get(name) for name in TROUBLE)
    if trouble or found.skipped or found.state == "stopped":
        return f"see which: counterfoil ops show {found.id} --items"
    return "see what is left: counterfoil outbox stats"


def until_it_ends(id_: str) -> Progress:
    """Watch until the operation ends, or until nobody drives it and nobody is there to wait.

    Ctrl-C leaves it running and exits with 130.
    """
    from service.engine import operations

    found = operations.show(id_)
    try:
        with _Bar(found) as bar:
            begun = monotonic()
            while found.state not in ENDED:
                sleep(LOOK_SECONDS)
                found = operations.show(id_)
                bar.update(found)
                silent = (found.unattended_seconds or 0.0) > SILENT_SECONDS and monotonic() - begun > SILENT_SECONDS
                if silent and not bar.silence():
                    break
                if found.state == "paused":
                    talk.say(f"somebody has paused it; counterfoil ops resume {id_}")
                    break
    except KeyboardInterrupt:
        talk.say(f"left; the relay goes on with it. counterfoil ops watch {id_}, counterfoil ops cancel {id_}")
        raise typer.Exit(exits.INTERRUPTED) from None
    return found


class _Bar:
    """A progress bar on a terminal, nothing in a pipe."""

    def __init__(self, found: Progress) -> None:
        self._found = found
        self._bar: Any = None
        self._task: Any = None
        self._told = False

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[ended]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._found.verb, total=self._found.total, ended="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, found: Progress) -> None:
        """Draw how it stands."""
        if self._bar:
            ended = " · ".join(f"{count} {name}" for name, count in sorted(found.ended.items()))
            dealt = found.done + sum(found.skipped.values())
            self._bar.update(self._task, completed=dealt, ended=ended)

    def silence(self) -> bool:
        """Say once that no relay is at work; whether to go on waiting for one."""
        if not self._told:
            self._told = True
            talk.say("no relay has looked after it yet: start one (counterfoil relay); it begins by itself then")
        return self._bar is not None
