"""The command's door: words nobody should type; each gets a sentence, an exit code of its own, and no traceback.

The command runs in this process, as `counterfoil` does in its own, so that tens of thousands of them take minutes.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
from collections.abc import Mapping
from unittest.mock import patch

from typer.main import get_command

from service.cli import exits, main
from service.cli.app import app
from tests.badinput.nasty import PLANTED, STRINGS, card, string
from tests.badinput.tally import Tally, leak

NOBODY = "019a2f6e-0000-7000-8000-00000000dead"
_CHARGE = {"--key": "k", "--amount": "4200", "--currency": "eur", "--payment-method": "pm_1"}
_EMAIL = {"--key": "k", "--to": "ada@example.test", "--subject": "s", "--text": "t"}
_REFUSED = {exits.USAGE, exits.NOTHING_MATCHED, exits.CONFIRMATION_NEEDED, exits.REFUSED}
_TEXTS = [text for text in STRINGS if text and "\x00" not in text and not text.startswith("-")]


def play(count: int, draw: random.Random, settings: Mapping[str, str]) -> Tally:
    tally = Tally("commands")
    environment = {f"COUNTERFOIL_{name}": value for name, value in settings.items()}
    # The tree of commands is built once and not for each of thousands: that is most of what a command costs.
    with patch("service.cli.app.app", get_command(app)):
        for _ in range(count):
            how, words = draw.choice(_WAYS)(draw)
            tally.played(how)
            _run(how, words, environment, tally)
    return tally


def _run(how: str, words: list[str], environment: dict[str, str], tally: Tally) -> None:
    said = io.StringIO()
    code: object = 0
    with (
        patch.dict(os.environ, environment),
        patch.object(sys, "argv", ["counterfoil", *words]),
        patch.object(sys, "stdin", io.StringIO("")),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException as error:  # noqa: BLE001 - this is what is looked for
            tally.wrong(how, f"{type(error).__name__} for {words!r:.300}")
            return
    tally.answers[str(code)] += 1
    if code not in _REFUSED or not said.getvalue().strip():
        tally.wrong(how, f"exit {code} for {words!r:.300}: {said.getvalue()[-300:]}")
    if "Traceback" in said.getvalue() or "a bug of ours" in said.getvalue():
        tally.wrong(how, f"a bug for {words!r:.300}: {said.getvalue()[-300:]}")
    if found := leak(said.getvalue()):
        tally.wrong(how, f"{found} for {words!r:.300}: {said.getvalue()[-300:]}")


def _send(draw: random.Random) -> tuple[str, list[str]]:
    command, good = draw.choice([("charge", _CHARGE), ("email", _EMAIL)])
    name = draw.choice(list(good))
    if draw.random() < 0.2:
        return f"{command} without {name}", [command, *_flat({k: v for k, v in good.items() if k != name})]
    wrong = {
        "--key": draw.choice(["a b", "é", "k" * 256, card(draw), PLANTED + " x"]),
        "--amount": draw.choice(["0", "-1", "x", "4200.0", "1e9", "9" * 40, "٣", "100000000", ""]),
        "--currency": draw.choice(["EUR", "xxx", "€", "", PLANTED]),
        "--payment-method": draw.choice(["", "pm 1", card(draw), PLANTED]),
        "--to": draw.choice(["ada", "a@b\nBcc: c@d.test", f"{PLANTED}@", ""]),
        "--subject": draw.choice(["a\nb", "x" * 201, "", card(draw)]),
        "--text": draw.choice(["", card(draw), f"{PLANTED} {card(draw)}"]),
    }[name]
    return f"{command} {name}", [command, *_flat({**good, name: wrong})]


def _flat(options: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def _id(draw: random.Random) -> tuple[str, list[str]]:
    words = draw.choice([["effects", "show"], ["outbox", "show"], ["effects", "verify"]])
    wrong = draw.choice([NOBODY, "17", NOBODY + "0", draw.choice(_TEXTS)[:300], card(draw)])
    return f"{' '.join(words)} of nobody", [*words, "--", wrong]


def _filter(draw: random.Random) -> tuple[str, list[str]]:
    words = draw.choice([["effects", "list"], ["outbox", "list"], ["outbox", "replay"]])
    option = draw.choice(
        [
            "--state=no-such-state",
            "--limit=0",
            "--limit=x",
            f"--limit={'9' * 30}",
            "--no-such-option",
            f"--kind={string(draw)[:80]}".replace("\x00", ""),
        ]
    )
    return f"{' '.join(words)} {option.partition('=')[0]}", [*words, option]


def _replay(draw: random.Random) -> tuple[str, list[str]]:
    words = draw.choice(
        [
            [],
            ["--id", NOBODY],
            ["--id", "17"],
            ["--state", "parked"],
            ["--state", "succeeded"],
            ["--id", "-"],
            ["--execute"],
        ]
    )
    return "outbox replay of nothing", [
        "outbox",
        "replay",
        *words,
        *draw.choice([[], ["--execute", "--reason", ""], ["--dry-run"]]),
    ]


def _resolve(draw: random.Random) -> tuple[str, list[str]]:
    more = draw.choice([[], ["--as", "succeeded"], ["--as", PLANTED], ["--reason", "x"], ["--evidence", card(draw)]])
    return "effects resolve of nobody", ["effects", "resolve", draw.choice([NOBODY, "17"]), *more]


def _unknown(draw: random.Random) -> tuple[str, list[str]]:
    word = draw.choice(_TEXTS)[:100]
    return "unknown command", draw.choice(
        [[word], ["outbox", word], ["effects", word], ["db", word], ["audit", word, word], [f"--{word}"]]
    )


_WAYS = (_send, _send, _id, _filter, _replay, _resolve, _unknown)
