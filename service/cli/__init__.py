"""The command `counterfoil`: data on stdout, talk on stderr, one sentence and an exit code instead of a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit."""
    from service.cli import exits
    from service.cli.app import app

    try:
        _check_words(sys.argv)
        app(prog_name="counterfoil")
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets a sentence
        sys.exit(exits.explain(error, as_json="--json" in sys.argv))


def _check_words(words: list[str]) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates (PEP 383), which neither a database nor a log can write."""
    from service.core.errors import ValidationError

    for place, word in enumerate(words):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ValidationError(f"argument {place} is not valid UTF-8; type it again as text", field=None) from None
