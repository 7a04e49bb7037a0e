"""The command `counterfoil`: data on stdout, talk on stderr, one sentence and an exit code instead of a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit."""
    from service.cli import exits
    from service.cli.app import app

    try:
        app(prog_name="counterfoil")
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last handler: a person gets a sentence
        sys.exit(exits.explain(error, as_json="--json" in sys.argv))
