"""What the demo shows: one line a blow, a live picture while it runs, the scoreboard at the end. All on stderr but
the board; without a terminal there is no live picture, only lines.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.demo.score import Asked, Score
from service.cli.demo.stage import Stage

LOOK_SECONDS = 0.25  # the picture asks the fakes; oftener would be part of the load


class Show:
    """The narrator. `quiet` (for --json) says nothing on stdout and draws nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._talk = Console(stderr=True, highlight=False, soft_wrap=True)
        self._out = Console(highlight=False, soft_wrap=True)
        self._start = time.monotonic()
        self._file: TextIO | None = None

    def say(self, line: str) -> None:
        """A line of the story."""
        self._talk.print(f"[dim]{time.monotonic() - self._start:5.1f}s[/]  {line}")

    def blow(self, line: str) -> None:
        """A blow, in one line."""
        self._talk.print(f"[dim]{time.monotonic() - self._start:5.1f}s[/]  [bold red]✗[/] {line}")

    def log(self, name: str, line: str) -> None:
        """Lines of the programs go to a file beside the ledgers, for `--keep`; a crash shows in the score."""
        if self._file is not None:
            self._file.write(f"{name} | {line}\n")

    def keep_log(self, file: Path) -> None:
        """From here on, keep what the programs print."""
        self._file = file.open("a", buffering=1, encoding="utf-8")

    @contextmanager
    def live(self, stage: Stage, asked: Sequence[Asked]) -> Iterator[Picture]:
        """A picture that draws itself when there is a terminal."""
        picture = Picture(stage, len(asked))
        if self._quiet or not self._talk.is_terminal:
            yield picture
            return
        with Live(picture.table(), console=self._talk, refresh_per_second=8, transient=True) as live:
            picture.live = live
            yield picture

    def board(self, score: Score, *, kept: Path | None) -> None:
        """The scoreboard, on stdout."""
        table = Table(title=_title(score), title_justify="left", show_header=False, box=None, padding=(0, 2))
        rows: list[tuple[str, int, bool]] = [
            ("requested", score.requested, True),
            ("charged once", score.charged_once, True),
            ("charged twice", score.charged_twice, score.charged_twice == 0),
            ("lost", score.lost, score.lost == 0),
            ("declined", score.declined, True),
            ("e-mails in the mailbox", score.emails, score.emails_doubled + score.emails_missing == 0),
            ("e-mails doubled", score.emails_doubled, score.emails_doubled == 0),
            ("e-mails missing", score.emails_missing, score.emails_missing == 0),
            ("redeliveries absorbed", score.redeliveries_absorbed, True),
        ]
        for name, value, good in rows:
            table.add_row(name, Text(str(value), style="bold" if good else "bold red", justify="right"))
        self._out.print(table)
        self._out.print(_verdict(score))
        if kept:
            self._out.print(f"kept in {kept}")
        for line in _next(score):
            self._out.print(f"  {line}")


class Picture:
    """Counts at the provider's ledger and in the mailbox, four times a second."""

    def __init__(self, stage: Stage, goal: int) -> None:
        self.live: Live | None = None
        self._stage = stage
        self._goal = goal
        self._looked = 0.0
        self._counts = (0, 0)

    def draw(self) -> None:
        """Look again, if it is time."""
        if self.live is None or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self._counts = (
            len(self._stage.stripe.get("/_fake/ledger")["money"]),
            len(self._stage.mail.get("/_fake/mailbox")["mail"]),
        )
        self.live.update(self.table())

    def table(self) -> Table:
        """Two bars."""
        table = Table(show_header=False, box=None)
        for name, count in zip(("charged at the provider", "e-mails in the mailbox"), self._counts, strict=True):
            table.add_row(name, ProgressBar(self._goal, min(count, self._goal), width=40), f"{count}/{self._goal}")
        return table


def _title(score: Score) -> str:
    return (
        f"\nScore, read from the provider's ledger and the mailbox ({score.mode}, seed {score.seed}, {score.seconds} s)"
    )


def _verdict(score: Score) -> str:
    if score.held:
        due = score.requested - score.declined
        return (
            f"\n[bold green]✓ {score.charged_once} of {due} charged exactly once[/] · "
            f"{score.redeliveries_absorbed} redeliveries absorbed · 0 lost · 0 doubled"
        )
    broken: dict[str, Any] = {
        "charged twice": score.charged_twice,
        "lost": score.lost,
        "wrong amount": score.wrong_amount,
        "receipts doubled": score.emails_doubled,
        "receipts missing": score.emails_missing,
        "unfinished": score.unfinished,
    }
    told = " · ".join(f"{count} {name}" for name, count in broken.items() if count)
    return f"\n[bold red]✗ the promise did not hold:[/] {told}"


def _next(score: Score) -> list[str]:
    if score.mode == "naive":
        return ["\nthe same storm with the ledger:  counterfoil demo"]
    return [
        "\nthe same storm without the ledger:  counterfoil demo --naive",
        "run everything and call it:         counterfoil up",
        "what is promised, and what is not:  docs/guarantees.md",
    ]
