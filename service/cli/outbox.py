"""`counterfoil outbox`: what is still to be delivered, what is stuck, and making it come due again."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import exits, replaying, talk
from service.cli.effects import Id, Limit
from service.cli.exits import examples
from service.cli.ground import effect_id, ground
from service.core.state import State

COLUMNS = ("effect_id", "kind", "state", "road", "available_at", "deliveries", "attempt", "parked_reason", "last_error")

app = typer.Typer(help="What is not settled yet.", no_args_is_help=True)


@app.command(
    "list",
    epilog=examples(
        "counterfoil outbox list --state parked", "counterfoil outbox list --kind charge --limit 500 --json"
    ),
)
def list_rows(
    state: Annotated[State | None, typer.Option(help="Only effects in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, refund, capture, cancel, email.")] = None,
    road: Annotated[str | None, typer.Option(help="fresh, later, published or parked.")] = None,
    limit: Limit = 50,
    as_json: talk.Json = False,
) -> None:
    """List outbox rows, oldest first."""
    ground()
    from service.store import outbox
    from service.store.database import statement

    filters = {"state": state.value if state else None, "kind": kind, "road": road}
    with statement() as connection:
        rows = outbox.rows(connection, filters, limit=limit)
    if not talk.table(rows, COLUMNS, as_json=as_json):
        talk.say("no outbox row matched")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command("show", epilog=examples("counterfoil outbox show 019a2f6e-0000-7000-8000-000000000017"))
def show(id_: Id, as_json: talk.Json = False) -> None:
    """Show the outbox row of one effect."""
    ground()
    from service.store import outbox
    from service.store.database import statement

    known = effect_id(id_)
    with statement() as connection:
        rows = outbox.rows(connection, {"effect_id": known}, limit=1)
    if not rows:
        talk.say(f"no outbox row for {known}: it is settled or was never accepted; counterfoil effects show {known}")
        raise typer.Exit(exits.NOTHING_MATCHED)
    talk.record(rows[0], as_json=as_json)


@app.command("stats", epilog=examples("counterfoil outbox stats", "counterfoil outbox stats --json"))
def stats(as_json: talk.Json = False) -> None:
    """Count by road and state, with the age of the oldest in seconds."""
    ground()
    from service.store import outbox
    from service.store.database import statement

    with statement() as connection:
        found = outbox.stats(connection)
    talk.record(found, as_json=as_json)


app.command("replay", epilog=examples(*replaying.EXAMPLES))(replaying.replay)
