"""`counterfoil outbox replay`: shows a plan; with `--execute` carries out exactly that plan, with a reason."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.ground import effect_id, ground, person
from service.core.errors import ValidationError
from service.core.state import State

if TYPE_CHECKING:
    from service.engine.replay import Done, Plan

ASK_ABOVE = 100  # so many rows are more than anybody has looked at: the count is typed, not clicked
SAMPLE = 5
EXAMPLES = (
    "counterfoil outbox replay --state parked",
    "counterfoil outbox replay --state parked --reason 'provider fixed, INC-42' --execute",
    "cut -f1 stuck.tsv | counterfoil outbox replay --id - --reason INC-42 --execute --yes",
)


def replay(
    *,
    ids: Annotated[list[str] | None, typer.Option("--id", help="An effect's id; repeatable; - reads stdin.")] = None,
    state: Annotated[State | None, typer.Option(help="parked or unknown.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, refund, capture, cancel, email.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the oldest first.")] = 1000,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the journal. Needed with --execute.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without: show the plan.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, which is the default.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Make unsettled effects come due now. Safe: same request, same key. Settled ones and live attempts are skipped."""
    if execute and dry_run:
        raise ValidationError("--execute and --dry-run contradict each other", field="execute")
    if execute and not (reason or "").strip():
        raise ValidationError("--execute needs --reason; it is kept in the journal", field="reason")
    settings = ground()
    from service.cli.config import shown
    from service.engine import replay as engine

    selection = engine.Selection(tuple(effect_id(one) for one in _given(ids or [])), state, kind, limit)
    plan = engine.plan(selection)
    target = shown(settings.database_url) or f"embedded, {settings.state_dir}"
    if not plan.eligible or not execute:
        _show(plan, target, as_json=as_json, hint=bool(plan.eligible))
        raise typer.Exit(exits.DONE if plan.eligible else exits.NOTHING_MATCHED)
    if not yes:
        _confirm(plan, target)
    done = engine.execute(plan, actor=person(), reason=(reason or "").strip())
    _tell(plan, done, as_json=as_json)
    raise typer.Exit(exits.PARTLY_DONE if done.changed or plan.skipped or plan.more else exits.DONE)


def _given(ids: Sequence[str]) -> list[str]:
    if "-" not in ids:
        return list(ids)
    piped = [line.strip() for line in sys.stdin if line.strip()]
    return [one for one in ids if one != "-"] + piped


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "eligible": len(plan.eligible),
        "skipped": {reason: len(ids) for reason, ids in plan.skipped.items()},
        "money": plan.money,
        "more": plan.more,
        "oldest": min((row["created_at"] for row in plan.eligible), default=None),
        "sample": [row["effect_id"] for row in plan.eligible[:SAMPLE]],
    }


def _show(plan: Plan, target: str, *, as_json: bool, hint: bool) -> None:
    talk.record({"executed": False, **_document(plan)}, as_json=as_json)
    if hint and not as_json:
        talk.say(f"nothing was done at {target}; repeat with --reason TEXT --execute")


def _confirm(plan: Plan, target: str) -> None:
    """Ask a person; without one, say what to add and leave. Never hangs."""
    count = len(plan.eligible)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        talk.say(f"{count} effects would be replayed at {target}; there is no terminal to confirm it on: add --yes")
        raise typer.Exit(exits.CONFIRMATION_NEEDED)
    if count <= ASK_ABOVE:
        return
    talk.say(f"{count} effects will be replayed at {target}; what is published cannot be called back")
    if typer.prompt(f"Type {count} to go on", default="", show_default=False, err=True).strip() != str(count):
        talk.say("nothing was done")
        raise typer.Exit(exits.CONFIRMATION_NEEDED)


def _tell(plan: Plan, done: Done, *, as_json: bool) -> None:
    counts = {"replayed": len(done.replayed), "changed_since_plan": len(done.changed)}
    talk.record({"executed": True, **counts, **_document(plan)}, as_json=as_json)
    if not as_json:
        talk.say("watch them: counterfoil outbox stats")
