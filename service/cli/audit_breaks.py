"""`counterfoil audit breaks`: what does not agree, whose it is, and closing it with a reason. Nothing closes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.exits import examples
from service.cli.ground import ground, person
from service.core.errors import ValidationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

FIELDS = (
    "id", "class", "subject", "effect_id", "provider", "provider_ref", "amount", "currency", "age_seconds", "owner",
    "note", "found_at", "seen_at", "not_seen_again", "first_audit", "last_audit", "closed_at", "closed_by", "detail",
)  # fmt: skip
COLUMNS = ("id", "class", "subject", "amount", "currency", "age", "owner", "seen", "note", "detail")

app = typer.Typer(help="What does not agree, until a person closes it.", no_args_is_help=True)
Id = Annotated[int, typer.Argument(min=1, help="The break's number.", metavar="ID")]


@app.command(
    "list",
    epilog=examples(
        "counterfoil audit breaks list",
        "counterfoil audit breaks list --class orphan_at_provider --json",
        "counterfoil audit breaks list --owner ada --closed",
    ),
)
def list_breaks(
    *,
    class_: Annotated[str | None, typer.Option("--class", help="Only this class.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this person's.")] = None,
    closed: Annotated[bool, typer.Option("--closed", help="The closed ones as well.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Go on after this number, the last of the page before.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 1000,
    as_json: talk.Json = False,
) -> None:
    """List open breaks, oldest first."""
    ground()
    from service.store import audits
    from service.store.database import statement

    with statement() as connection:
        rows = audits.listed(connection, class_=class_, owner=owner, closed=closed, after=after, limit=limit)
    if not talk.table(rows if as_json else shown(rows), COLUMNS, as_json=as_json):
        talk.say("no break matched")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command(
    "assign",
    epilog=examples(
        "counterfoil audit breaks assign 17 --to ada",
        "counterfoil audit breaks assign 17 --to finance --json",
        "counterfoil audit breaks assign 17 --to $USER",
    ),
)
def assign(
    break_id: Id,
    to: Annotated[str, typer.Option(help="Whose it is from now on.")],
    as_json: talk.Json = False,
) -> None:
    """Say whose a break is."""
    from service.store import audits

    name = _words(to, "to")
    _change(break_id, lambda connection: audits.assign(connection, break_id, name), as_json=as_json, owner=name)


@app.command(
    "note",
    epilog=examples(
        "counterfoil audit breaks note 17 'asked Stripe, case 4711'",
        "counterfoil audit breaks note 17 'the customer has it twice' --json",
        'counterfoil audit breaks note 17 "$(cat answer.txt)"',
    ),
)
def note(
    break_id: Id,
    text: Annotated[str, typer.Argument(help="What was found out.", metavar="TEXT")],
    as_json: talk.Json = False,
) -> None:
    """Add a line to a break."""
    from service.store import audits

    words = f"{person()}: {_words(text, 'text')}"
    _change(break_id, lambda connection: audits.note(connection, break_id, words), as_json=as_json, note=words)


@app.command(
    "close",
    epilog=examples(
        "counterfoil audit breaks close 17 --reason 'refunded by hand, re_123'",
        "counterfoil audit breaks close 17 --reason 'a payment of the old system'",
        "counterfoil audit breaks close 17 --reason INC-42 --json",
    ),
)
def close(
    break_id: Id,
    reason: Annotated[str, typer.Option(help="Why it is mended; kept with the break.")],
    as_json: talk.Json = False,
) -> None:
    """Close a break. Found again by a later audit, it is a new one."""
    from service.store import audits, breaks

    actor = person()
    words = f"{actor}: closed: {_words(reason, 'reason')}"

    def both(connection: Connection) -> bool:
        return audits.note(connection, break_id, words) and breaks.close(connection, break_id, actor=actor)

    _change(break_id, both, as_json=as_json, closed_by=actor)


def _words(given: str, field: str) -> str:
    if not given.strip() or not given.isprintable():
        raise ValidationError(f"{field} must be one line of words", field=field)
    return given.strip()


def _change(break_id: int, change: Callable[[Connection], bool], *, as_json: bool, **told: Any) -> None:
    ground()
    from service.store.database import transaction

    with transaction() as connection:
        done = change(connection)
    if not done:
        talk.say(f"no open break {break_id}: counterfoil audit breaks list shows them")
        raise typer.Exit(exits.NOTHING_MATCHED)
    talk.record({"id": break_id, **told}, as_json=as_json)


def shown(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Breaks for people: an age they can read, and whether the last look still saw it."""
    return [
        {
            **row,
            "age": _age(row["age_seconds"]),
            "seen": "closed" if row["closed_at"] else "not seen again" if row["not_seen_again"] else "yes",
        }
        for row in rows
    ]


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
