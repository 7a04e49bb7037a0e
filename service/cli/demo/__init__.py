"""`counterfoil demo`: the promise, shown. Everything real starts, 200 charges go through a storm, and the score is
read from the provider's own ledger and the mailbox, never from our tables.

stage  starts and stops everything     crowd  the callers, at least once each
storm  the blows, one line each        score  what the provider and the mailbox say
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

SECONDS_MAX = 120.0  # a demo that has not converged by then has broken its promise, whatever the reason


def demo(
    charges: Annotated[int, typer.Option(min=1, max=5000, help="How many charges, each with a receipt.")] = 200,
    seed: Annotated[int | None, typer.Option(help="Repeat a run's choices; printed at its start.")] = None,
    naive: Annotated[
        bool, typer.Option("--naive", help="The same storm on a plain acks_late task, no ledger.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the databases and ledgers in STATE_DIR/demo.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Watch charges happen exactly once while processes are being killed.

    Exit code 0 only if the promise held: nothing charged twice, nothing lost, one receipt a charge.

    Examples:
        counterfoil demo

        counterfoil demo --naive

        counterfoil demo --seed 7 --json

    """
    from service.cli.demo.naive import run_naive
    from service.cli.demo.run import run
    from service.cli.demo.show import Show

    chosen = seed if seed is not None else random.SystemRandom().randrange(1_000_000)
    show = Show(quiet=as_json)
    started = time.monotonic()
    with ExitStack() as stack:
        state = _state(stack, keep=keep)
        show.keep_log(state / "programs.log")
        play = run_naive if naive else run
        score = play(state, charges, random.Random(chosen), show, SECONDS_MAX)  # noqa: S311 - a seed to repeat, no secret
    score.seed = chosen
    score.seconds = round(time.monotonic() - started, 1)
    if as_json:
        sys.stdout.write(json.dumps(score.as_dict()) + "\n")
    else:
        show.board(score, kept=state if keep else None)
    # The naive run is there to fail; it succeeds as a demonstration when it has shown what it came to show.
    raise typer.Exit(0 if naive or score.held else 1)


def _state(stack: ExitStack, *, keep: bool) -> Path:
    if not keep:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="counterfoil-demo-")))
    from service import settings

    folder = settings.load().state_dir / "demo" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    return folder
