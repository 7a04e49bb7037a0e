"""The command `counterfoil`: data on stdout, talk on stderr, one sentence and an exit code instead of a traceback."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line of this process and exit."""
    from service.cli import exits
    from service.cli.app import app

    _open_what_is_closed()
    try:
        _check_words(sys.argv)
        app(prog_name="counterfoil")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # click calls it an error; the reader has seen enough
            sys.exit(exits.DONE)
        raise
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets a sentence
        sys.exit(exits.explain(error, as_json="--json" in sys.argv))


def _open_what_is_closed() -> None:
    """A shell's `<&-` and `>&-` leave None where a stream should be: nothing comes from there, and nothing is kept."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - for as long as the process
    for stream in (sys.stdout, sys.stderr):  # LANG=C: a sign that it cannot write must not end the command
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _check_words(words: list[str]) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates (PEP 383), which neither a database nor a log can write."""
    from service.core.errors import ValidationError

    for place, word in enumerate(words):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValidationError(f"argument {place} is not valid UTF-8; type it again as text", field=None) from None
