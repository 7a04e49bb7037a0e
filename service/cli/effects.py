"""`counterfoil effects`: how effects stand, and what happened to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.cli import exits, retention, talk, verifying
from service.cli.exits import examples
from service.cli.ground import effect_id, ground
from service.core.errors import EffectNotFound
from service.core.state import FINAL, State

COLUMNS = ("id", "kind", "state", "attempt", "amount", "currency", "dedupe_key", "created_at")
LIMIT_MAX = 10_000

app = typer.Typer(help="What was accepted, and how it stands.", no_args_is_help=True)
Limit = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most this many.")]
Id = Annotated[str, typer.Argument(help="The effect's id.", metavar="ID")]


@app.command(
    "list",
    epilog=examples(
        "counterfoil effects list --state unknown",
        "counterfoil effects list --kind charge --limit 100 --json",
        "counterfoil effects list --after 019a2f6e-0000-7000-8000-000000000017",
    ),
)
def list_effects(
    *,
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, refund, capture, cancel, email.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this id, the last of the page before.")] = None,
    limit: Limit = 50,
    output: talk.Output = None,
    as_json: talk.Json = False,
) -> None:
    """List effects, newest first."""
    ground()
    from service.store import effects
    from service.store.database import statement

    cursor = effect_id(after) if after else None
    filters = {"state": state.value if state else None, "kind": kind}
    with statement() as connection:
        rows = effects.page(connection, filters, after=cursor, limit=limit)
    if not talk.table(rows, COLUMNS, as_json=as_json, output=output):
        talk.say("no effect matched")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command(
    "show",
    epilog=examples(
        "counterfoil effects show 019a2f6e-0000-7000-8000-000000000017",
        "counterfoil effects show 019a2f6e-0000-7000-8000-000000000017 --json",
        "counterfoil outbox list --state parked --output ids | xargs -n1 counterfoil effects show",
    ),
)
def show(id_: Id, as_json: talk.Json = False) -> None:
    """Show one effect and its journal."""
    ground()
    from service.store import effects, groups, journal, retention
    from service.store.database import statement

    known = effect_id(id_)
    with statement() as connection:
        row = effects.get(connection, known)
        facts = journal.of(connection, known, since=row["created_at"] if row else None)
        group = groups.of(connection, known)
        gone = [one["erased"] for one in retention.standing(connection, [known], tenant=None) if one["id"] == known]
    if row is None:
        raise EffectNotFound(f"no effect {known}")
    row["request"] = "gone" if gone[0] else "kept"  # whether it is there; what it says is nobody's to read here
    if as_json:
        talk.emit({**row, "journal": facts})
        return
    talk.record(row, as_json=False)
    talk.table(facts, ("at", "fact", "attempt", "actor", "evidence"), as_json=False)
    talk.say(_next(row, group))


def _next(row: Mapping[str, Any], group: str | None) -> str:
    """The one thing to do about an effect."""
    state = State(row["state"])
    if state in FINAL and row["request"] == "gone":
        return (
            "nothing is left to do: this is final; its request was purged or erased, the rest stays (docs/retention.md)"
        )
    if state in FINAL:
        return "nothing is left to do: this is final"
    if row.get("parked_reason") == "by_person":
        return f"let it go on: counterfoil outbox unpark --id {row['id']}"
    if state is State.PARKED:
        return f"mend what the last error says, then see the plan: counterfoil outbox replay --group {group}"
    if state is State.UNKNOWN:
        return f"ask the provider: counterfoil effects verify {row['id']}"
    return "it goes on by itself; watch it: counterfoil top"


app.command("verify", epilog=examples(*verifying.VERIFY_EXAMPLES))(verifying.verify)
app.command("resolve", epilog=examples(*verifying.RESOLVE_EXAMPLES))(verifying.resolve)
app.command("erase", epilog=examples(*retention.ERASE_EXAMPLES))(retention.erase)
