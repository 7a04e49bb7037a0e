"""`counterfoil recover`: after the database went back in time, show what is in doubt; with `--execute` release it."""

from __future__ import annotations

from datetime import UTC, datetime
from time import sleep
from typing import Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.ground import announce, ground, person
from service.core.errors import ValidationError

SAMPLE = 20
EXAMPLES = (
    "counterfoil recover",
    "counterfoil recover --execute --reason 'failover of the 3rd, old primary is gone, INC-42'",
    "counterfoil recover --since 2026-03-01T10:00:00Z --execute --reason 'restored a snapshot' --json",
)


def recover(
    *,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"],
            help="Ask the provider for all since then (UTC). Default: an hour before the last claim we know of.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it may send again; kept for ever. With --execute.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it, and release. Without: show the plan.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, which is the default.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Recover from a failover or restore that lost commits; nothing is sent before. Be sure the old primary is gone."""
    if execute and dry_run:
        raise ValidationError("--execute and --dry-run contradict each other", field="execute")
    if execute and not (reason or "").strip():
        raise ValidationError("--execute needs --reason; it is kept for ever", field="reason")
    settings = ground()
    from service.engine import recover as engine

    begin = since.replace(tzinfo=UTC) if since else None
    tell = talk.say if not as_json else _silent
    if not execute:
        planned = engine.plan(settings, since=begin, tell=tell)
        _show(planned, as_json=as_json)
        raise typer.Exit(exits.NOTHING_MATCHED if planned.standing.open and begin is None else exits.DONE)
    announce(settings, "what may have been sent is marked, and sending is released")
    done = engine.execute(settings, since=begin, actor=person(), reason=(reason or "").strip(), tell=tell, sleep=sleep)
    _tell(done, as_json=as_json)


def _silent(_: str) -> None:
    """With `--json` there is one document on stdout, and nothing else anywhere."""


def _show(planned: Any, *, as_json: bool) -> None:
    from service.engine.quarantine import sentence

    talk.record(
        {
            "released": False,
            "quarantined": not planned.standing.open,
            "standing": sentence(planned.standing),
            "since": planned.since,
            "in_doubt": sum(planned.doubtful.values()),
            "in_doubt_by_state": planned.doubtful,
            **planned.found,
        },
        as_json=as_json,
    )
    if not as_json and not planned.standing.open:
        talk.say("nothing was changed; make sure the old primary is gone, then repeat with --reason TEXT --execute")


def _tell(done: Any, *, as_json: bool) -> None:
    from service.store import orphans
    from service.store.database import statement

    with statement() as connection:
        left = orphans.listed(connection, limit=SAMPLE)
    talk.record(
        {"released": True, "incarnation": done.incarnation, "since": done.since, "doubted": done.doubted, **done.found}
        | ({"orphans_listed": left} if as_json else {}),
        as_json=as_json,
    )
    if as_json:
        return
    if left:
        talk.table(left, ("provider_ref", "kind", "amount", "currency", "provider_created_at"), as_json=False)
        talk.say("callers that repeat their keys adopt these; the others are open breaks, for a person")
    talk.say("released: what is due goes out now; watch it: counterfoil outbox stats")
