"""`counterfoil outbox groups` and `outbox note`: what fails in the same way, and what people know about it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from service.cli import exits, talk
from service.cli.ground import ground, person
from service.cli.stats import DRAWN_GROUP_COLUMNS, GROUP_COLUMNS, drawn

GROUPS_EXAMPLES = (
    "counterfoil outbox groups",
    "counterfoil outbox groups --json",
    "counterfoil outbox groups --output ids | head -1 | xargs counterfoil outbox replay --group",
)
NOTE_EXAMPLES = (
    "counterfoil outbox note 3f2a90c1d7e4 'the key was rotated at 02:10, INC-42'",
    "counterfoil outbox note 3f2a90c1d7e4 'do not replay before Stripe answers' --json",
    "counterfoil outbox groups --output ids | xargs -I{} counterfoil outbox note {} 'see INC-42'",
)


def groups(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    output: talk.Output = None,
    as_json: talk.Json = False,
) -> None:
    """Failures that are alike are one line: kind, state, reason, error, code, how many, how much money, notes."""
    ground()
    from service.engine import groups as engine

    rows = [asdict(group) for group in engine.listed(tenant=tenant, limit=limit)]
    for_people = not as_json and (output == "table" or (output is None and sys.stdout.isatty()))
    shown, columns = (drawn(rows), DRAWN_GROUP_COLUMNS) if for_people else (rows, GROUP_COLUMNS)
    if not talk.table(shown, columns, as_json=as_json, output=output):
        talk.say("nothing fails")
        raise typer.Exit(exits.NOTHING_MATCHED)
    if not as_json and output is None:
        for row in rows:
            for note in row["notes"]:
                talk.say(f"{row['id']}: {note['note']} ({note['author']}, {talk.text(note['at'])})")
        talk.say(f"see the plan: counterfoil outbox replay --group {rows[0]['id']}")


def note(
    group: Annotated[str, typer.Argument(help="The group's id.", metavar="GROUP")],
    said: Annotated[str, typer.Argument(help="What the next person should know.", metavar="TEXT")],
    as_json: talk.Json = False,
) -> None:
    """Write about a group; whoever looks at it next reads it."""
    ground()
    from service.engine import groups as engine

    engine.note(group, said, actor=person(), door="cli")
    talk.record({"group": group, "note": said}, as_json=as_json)
