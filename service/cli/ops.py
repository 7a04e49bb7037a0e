"""`counterfoil ops`: operations upon many effects: how far they are, and pausing, resuming or cancelling them."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import exits, following, talk
from service.cli.exits import examples
from service.cli.ground import announce, ground, person
from service.cli.selecting import operation_id
from service.core.errors import ValidationError

COLUMNS = ("id", "verb", "state", "done", "total", "started_by", "started_at", "reason")
ITEM_COLUMNS = ("position", "effect_id", "kind", "result", "why", "ended", "state")
STATES = ("planned", "running", "paused", "done", "stopped", "cancelled")
ITEMS_AT_ONCE = 1_000
_ONE = "019a2f6e-0000-7000-8000-0000000000aa"

app = typer.Typer(help="Operations: what was started upon many effects, and how far it is.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="The operation's id.", metavar="ID")]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the operators' log.")]


def _examples(verb: str) -> str:
    return examples(
        f"counterfoil ops {verb} {_ONE}",
        f"counterfoil ops {verb} {_ONE} --json",
        f"counterfoil ops list --state running --output ids | xargs -n1 counterfoil ops {verb}",
    )


@app.command(
    "list",
    epilog=examples(
        "counterfoil ops list",
        "counterfoil ops list --state running --json",
        "counterfoil ops list --limit 200 --output csv > operations.csv",
    ),
)
def list_operations(
    *,
    state: Annotated[str | None, typer.Option(help=", ".join(STATES))] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this id, the last of the page before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    output: talk.Output = None,
    as_json: talk.Json = False,
) -> None:
    """List operations, newest first."""
    if state is not None and state not in STATES:
        raise ValidationError(f"state is one of {', '.join(STATES)}", field="state")
    ground()
    from service.engine import operations

    cursor = operation_id(after) if after else None
    found = operations.listed(state=state, tenant=tenant, after=cursor, limit=limit)
    rows = [one.document() for one in found]
    if not talk.table(rows, COLUMNS, as_json=as_json, output=output):
        talk.say("no operation matched")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command("show", epilog=_examples("show"))
def show(
    id_: Id,
    items: Annotated[bool, typer.Option("--items", help="Each effect of the frozen set as well.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Show one operation; with --items what became of each effect."""
    known = operation_id(id_)
    ground()
    from service.engine import operations

    found = operations.show(known)
    rows = operations.items(known, limit=ITEMS_AT_ONCE) if items else []
    if as_json:
        talk.emit({**found.document(), **({"items": rows} if items else {})})
        return
    talk.record(found.document(), as_json=False)
    if items:
        talk.table(rows, ITEM_COLUMNS, as_json=False)
    talk.say(following.next_command(found))


@app.command("watch", epilog=_examples("watch"))
def watch(id_: Id, as_json: talk.Json = False) -> None:
    """Watch one until it ends; Ctrl-C leaves, and it goes on. Exit code 0 if all went well, 4 if not."""
    known = operation_id(id_)
    ground()
    found = following.until_it_ends(known)
    talk.record({"operation": known, "verb": found.verb, **following.brief(found)}, as_json=as_json)
    if not as_json:
        talk.say(following.next_command(found))
    raise typer.Exit(following.exit_code(found, waited=True, more=False))


@app.command("pause", epilog=_examples("pause"))
def pause(id_: Id, reason: Reason = None, as_json: talk.Json = False) -> None:
    """Touch no further effect until `resume`; those that were touched are on their way."""
    _turn("pause", id_, reason, as_json=as_json)


@app.command("resume", epilog=_examples("resume"))
def resume(id_: Id, reason: Reason = None, as_json: talk.Json = False) -> None:
    """Go on where it was paused."""
    _turn("resume", id_, reason, as_json=as_json)


@app.command("cancel", epilog=_examples("cancel"))
def cancel(id_: Id, reason: Reason = None, as_json: talk.Json = False) -> None:
    """Never touch the rest. What was replayed cannot be called back: it happens once, as always."""
    _turn("cancel", id_, reason, as_json=as_json)


def _turn(verb: str, id_: str, reason: str | None, *, as_json: bool) -> None:
    known = operation_id(id_)
    announce(ground(), f"{verb} of operation {known}")
    from service.engine import operations

    turn = {"pause": operations.pause, "resume": operations.resume, "cancel": operations.cancel}[verb]
    found = turn(known, actor=person(), door="cli", reason=reason)
    talk.record({"operation": known, "verb": found.verb, **following.brief(found)}, as_json=as_json)
    if not as_json:
        talk.say(following.next_command(found))
