"""`counterfoil db`: bring the database to this version's tables, or say whether it is there."""

from __future__ import annotations

import typer

from service.cli import exits, retention, roles, talk
from service.cli.exits import examples
from service.cli.ground import ground

app = typer.Typer(help="The tables.", no_args_is_help=True)


@app.command(
    "upgrade",
    epilog=examples(
        "counterfoil db upgrade", "counterfoil db upgrade --json", "counterfoil db upgrade && counterfoil doctor"
    ),
)
def upgrade(as_json: talk.Json = False) -> None:
    """Run the migrations that are missing; two at once take turns. Safe to call on every deploy."""
    from service.store import schema

    ground()
    before = _there()
    schema.upgrade()
    head = schema.code_head()
    if as_json:
        talk.emit({"before": before, "now": head, "changed": before != head})
    else:
        talk.say(f"the database is at {head}" if before == head else f"upgraded from {before or 'nothing'} to {head}")


@app.command(
    "check",
    epilog=examples(
        "counterfoil db check", "counterfoil db check --json", "counterfoil db check || counterfoil db upgrade"
    ),
)
def check(as_json: talk.Json = False) -> None:
    """Say whether the database has this version's tables; exit code 1 if not."""
    from service.store import schema

    ground()
    there, head = _there(), schema.code_head()
    if as_json:
        talk.emit({"database": there, "code": head, "ok": there == head})
    elif there == head:
        talk.say(f"the database is at {head}, as this version needs")
    else:
        talk.say(
            f"the database is at {there or 'nothing'}, this version needs {head}: counterfoil db upgrade", style="red"
        )
    raise typer.Exit(exits.DONE if there == head else exits.ERROR)


app.command("prune", epilog=examples(*retention.PRUNE_EXAMPLES))(retention.prune)


app.command("roles", epilog=examples(*roles.EXAMPLES))(roles.roles)


def _there() -> str | None:
    from service.store import schema
    from service.store.database import statement

    with statement() as connection:
        return schema.database_head(connection)
