"""`counterfoil outbox`: what is still to be delivered, what is stuck, and making it come due again."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import exits, grouping, replaying, stats, talk
from service.cli.effects import Id, Limit
from service.cli.exits import examples
from service.cli.ground import effect_id, ground
from service.core.operation import Verb
from service.core.state import State

COLUMNS = ("effect_id", "kind", "state", "road", "available_at", "deliveries", "attempt", "parked_reason", "last_error")

app = typer.Typer(help="What is not settled yet.", no_args_is_help=True)


@app.command(
    "list",
    epilog=examples(
        "counterfoil outbox list --state parked",
        "counterfoil outbox list --kind charge --limit 500 --json",
        "counterfoil outbox list --road held --output ids",
    ),
)
def list_rows(
    *,
    state: Annotated[State | None, typer.Option(help="Only effects in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, refund, capture, cancel, email.")] = None,
    road: Annotated[str | None, typer.Option(help="fresh, later, published, parked or held.")] = None,
    limit: Limit = 50,
    output: talk.Output = None,
    as_json: talk.Json = False,
) -> None:
    """List outbox rows, oldest first."""
    ground()
    from service.store import outbox
    from service.store.database import statement

    filters = {"state": state.value if state else None, "kind": kind, "road": road}
    with statement() as connection:
        rows = outbox.rows(connection, filters, limit=limit)
    if not talk.table(rows, COLUMNS, as_json=as_json, output=output):
        talk.say("no outbox row matched")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command(
    "show",
    epilog=examples(
        "counterfoil outbox show 019a2f6e-0000-7000-8000-000000000017",
        "counterfoil outbox show 019a2f6e-0000-7000-8000-000000000017 --json",
        "counterfoil outbox list --state parked --output ids | xargs -n1 counterfoil outbox show",
    ),
)
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


app.command("stats", epilog=examples(*stats.EXAMPLES))(stats.stats)
app.command("groups", epilog=examples(*grouping.GROUPS_EXAMPLES))(grouping.groups)
app.command("note", epilog=examples(*grouping.NOTE_EXAMPLES))(grouping.note)
for _verb in Verb:
    _examples = examples(*replaying.EXAMPLES[_verb])
    app.command(_verb.value, help=replaying.HELP[_verb], epilog=_examples)(replaying.act)
app.command("apply", epilog=examples(*replaying.APPLY_EXAMPLES))(replaying.apply)
