"""The command `counterfoil`: data on stdout, talk on stderr, one sentence and an exit code instead of a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable


def main() -> None:
    """Run the command line of this process and exit."""
    _open_what_is_closed()
    sys.exit(_run())


def _run() -> int | str | None:
    from service.cli import exits
    from service.cli.app import app

    try:
        _check_words(sys.argv)
        code = _code_of(app)
        sys.stdout.flush()  # at the interpreter's end nobody could say any more what went wrong
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets a sentence
        code = exits.explain(error, as_json="--json" in sys.argv)
        _let_go_of_stdout()
    return code


def _code_of(app: Callable[..., object]) -> int | str | None:
    try:
        app(prog_name="counterfoil")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # click calls it an error; the reader has seen enough
            raise end.__context__ from None
        return end.code
    return None


def _let_go_of_stdout() -> None:
    """What could not be written there is tried once more as the interpreter ends, which would make it exit code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_what_is_closed() -> None:
    """A shell's `<&-` and `>&-` leave None where a stream should be: nothing comes from there, and nothing is kept."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - for as long as the process
    for stream in (sys.stdout, sys.stderr):  # LANG=C: a sign that it cannot write must not end the command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _check_words(words: list[str]) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates (PEP 383), which neither a database nor a log can write."""
    from service.core.errors import ValidationError

    for place, word in enumerate(words):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValidationError(f"argument {place} is not valid UTF-8; type it again as text", field=None) from None
