"""Every `--help` ends with three examples that the command really understands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from typer.main import get_command

from service.cli.app import app

EXAMPLES_MIN = 3
# They hand their words on: to Celery, to the chaos suite, to the demo's own parser.
PASSED_ON = {"worker", "chaos", "demo"}


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    children = getattr(group, "commands", None)
    if children is None:
        yield path, group
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


TREE = {" ".join(path): command for path, command in commands(get_command(app))}


def examples(command: click.Command) -> list[list[str]]:
    """The words of each example after `counterfoil`, of the last such command in a pipe."""
    found = []
    for line in (command.epilog or "").splitlines():
        before, mark, _ = line.partition("counterfoil ")
        if mark and not before.startswith(("Exit", "Examples")):
            words = shlex.split(line.replace("$(date +%F)", "2026-11-23"))
            starts = [n for n, word in enumerate(words) if word == "counterfoil"]
            found.append([words[start + 1 :] for start in starts])
    return [calls for calls in found if calls]  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in TREE if name != "demo"])
def test_a_command_shows_three_examples_that_it_understands(name: str) -> None:
    own = name.split()
    shown = [
        words
        for calls in examples(TREE[name])
        for words in ([_alone(call) for call in calls if _alone(call)[: len(own)] == own][:1])
    ]
    assert len(shown) >= EXAMPLES_MIN, shown
    if name in PASSED_ON:
        return
    for words in shown:
        given = [word.replace("{}", "x") for word in words[len(own) :]]
        # What xargs adds at the end: an id.
        if (
            own != ["config", "show"]
            and own[-1] in ("show", "watch", "pause", "resume", "cancel")
            and not [w for w in given if not w.startswith("-")]
        ):
            given.append("019a2f6e-0000-7000-8000-000000000017")
        if name == "outbox replay" and given[-1:] == ["--group"]:
            given.append("x")
        TREE[name].make_context(name, given, resilient_parsing=False)


def _alone(words: list[str]) -> list[str]:
    """Up to where the shell takes over."""
    ends = [n for n, word in enumerate(words) if word in ("|", "&&", ">", ">>", "||") or word.endswith(";")]
    return words[: ends[0]] if ends else words
