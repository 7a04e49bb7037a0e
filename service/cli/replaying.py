"""`counterfoil outbox replay | park | unpark | apply`: shows a plan; with `--execute` starts exactly that plan.

The relay carries it out; this process only watches, and may be left at any time. What is not started does nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exits, following, selecting, talk
from service.cli.ground import announce, ground, person, target
from service.core.errors import ValidationError
from service.core.operation import BATCH, Pace, Planned, Selection, Verb

if TYPE_CHECKING:
    from service.settings import Settings

SAMPLE_COLUMNS = ("effect_id", "kind", "state", "amount", "currency", "parked_reason", "last_error")
LIMIT_DEFAULT = 1000
ASK_ABOVE = 100  # so many rows are more than anybody has looked at: the count is typed, not clicked
_ALWAYS = "Settled effects and live attempts are skipped. Shows a plan unless --execute is given."
HELP = {
    Verb.REPLAY: f"Make unsettled effects come due now, with a new budget: same request, same keys. {_ALWAYS}",
    Verb.PARK: f"Hold unsettled effects until somebody lifts it; nothing attempts them meanwhile. {_ALWAYS}",
    Verb.UNPARK: f"Lift what `outbox park` has parked; what was parked for another reason is replayed. {_ALWAYS}",
}
_DONE = {Verb.REPLAY: "replayed", Verb.PARK: "parked", Verb.UNPARK: "unparked"}
EXAMPLES = {
    Verb.REPLAY: (
        "counterfoil outbox replay --state stuck --kind charge",
        "counterfoil outbox replay --group 3f2a90c1d7e4 --reason 'fixed, INC-42' --execute --canary 5 --rate 20/s",
        "counterfoil outbox list --road parked -o ids | counterfoil outbox replay --id - --reason ok --yes --execute",
    ),
    Verb.PARK: (
        "counterfoil outbox park --kind email --older-than 2h",
        "counterfoil outbox park --key-prefix import:2026-11: --reason 'wrong import, INC-43' --execute",
        "counterfoil outbox park --id 019a2f6e-0000-7000-8000-000000000017 --reason 'disputed' --execute --yes",
    ),
    Verb.UNPARK: (
        "counterfoil outbox unpark --state parked",
        "counterfoil outbox unpark --operation 019a2f6e-0000-7000-8000-0000000000aa --reason 'checked' --execute",
        "counterfoil outbox unpark --id 019a2f6e-0000-7000-8000-000000000017 --reason 'settled' --execute --yes",
    ),
}
APPLY_EXAMPLES = (
    "counterfoil outbox apply 019a2f6e-0000-7000-8000-0000000000aa --reason 'provider fixed, INC-42'",
    "counterfoil outbox apply 019a2f6e-0000-7000-8000-0000000000aa --reason INC-42 --rate 300/m --canary 5 --yes",
    "counterfoil outbox apply 019a2f6e-0000-7000-8000-0000000000aa --reason INC-42 --no-wait --yes --json",
)

Reason = Annotated[str | None, typer.Option(help="Why; kept in every effect's journal. Needed to execute.")]
Rate = Annotated[str | None, typer.Option(help="At most so many effects: 20/s, 300/m. Default: as fast as the window.")]
Canary = Annotated[
    int, typer.Option(min=0, max=10_000, help="So many first effects must succeed before the others begin.")
]
FailuresMax = Annotated[
    int | None,
    typer.Option("--max-failures", min=0, max=10_000, help="Stop when more than this many end failed or stuck again."),
]
Batch = Annotated[
    int, typer.Option(min=1, max=1_000, help="Effects of one commit; a pause or a cancel waits for one at most.")
]
Resume = Annotated[
    str | None, typer.Option("--resume", metavar="ID", help="Go on with a paused operation; alone, without a selector.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Watch until it ends; Ctrl-C leaves, and it goes on.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")]


def act(
    context: typer.Context,
    *,
    ids: selecting.Ids = None,
    state: selecting.State = None,
    kind: selecting.Kind = None,
    lane: selecting.Lane = None,
    tenant: selecting.Tenant = None,
    older_than: selecting.OlderThan = None,
    since: selecting.Since = None,
    until: selecting.Until = None,
    error_like: selecting.ErrorLike = None,
    group: selecting.Group = None,
    key_prefix: selecting.KeyPrefix = None,
    ref: selecting.Ref = None,
    operation: selecting.Operation = None,
    limit: selecting.Limit = None,
    reason: Reason = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it. Without: show the plan.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, which is the default.")] = False,
    rate: Rate = None,
    canary: Canary = 0,
    failures_max: FailuresMax = None,
    batch: Batch = BATCH,
    max_replays: Annotated[int, typer.Option(min=1, max=10_000, help="Skip what was replayed so often before.")] = 3,
    force_replays: Annotated[bool, typer.Option("--force-replays", help="Do not skip those.")] = False,
    resume: Resume = None,
    wait: Wait = True,
    yes: Yes = False,
    as_json: talk.Json = False,
) -> None:
    """Plan what the command's own name says, and start it when asked to."""
    named = {"state": state, "kind": kind, "tenant": tenant, "lane": lane, "group": group, "ref": ref}
    named |= {"error_like": error_like, "key_prefix": key_prefix, "operation": operation}
    times = {"older_than": older_than, "since": since, "until": until}
    chosen = selecting.selection(ids, named, times, limit=limit or LIMIT_DEFAULT)
    pace = Pace(selecting.per_second(rate), canary, failures_max, batch)
    wish = _Wish(execute, dry_run, (reason or "").strip(), wait, yes, as_json, cut=limit is not None)
    verb = Verb(str(context.info_name))
    if resume is not None:
        _go_on(verb, resume, wish, alone=not (ids or chosen.wanted()) and pace == Pace())
    _carry_out(verb, chosen, pace, wish, None if force_replays else max_replays)


@dataclass(frozen=True, slots=True)
class _Wish:
    """How the person wants it done."""

    execute: bool
    dry_run: bool
    reason: str
    wait: bool
    yes: bool
    as_json: bool
    cut: bool  # said how many at most


def _carry_out(verb: Verb, chosen: Selection, pace: Pace, wish: _Wish, max_replays: int | None) -> None:
    if wish.execute and wish.dry_run:
        raise ValidationError("--execute and --dry-run contradict each other", field="execute")
    if wish.execute and not wish.reason:
        raise ValidationError("--execute needs --reason; it is kept in the journal", field="reason")
    settings = ground()
    from service.engine import operations

    limit = operations.REPLAYS_MAX if max_replays is None else max_replays
    plan = operations.plan(verb, chosen, actor=person(), max_replays=limit, force=max_replays is None)
    if not plan.eligible or not wish.execute:
        _show(plan, settings, as_json=wish.as_json)
    if plan.more and not wish.cut:
        # Half of an incident by accident is worse than none: whoever wants a part of it says how much.
        talk.say(
            f"nothing was done: more than {LIMIT_DEFAULT} match; --limit {LIMIT_DEFAULT} takes the oldest of them",
            must=True,
        )
        raise typer.Exit(exits.REFUSED)
    _confirm(verb, plan.eligible, settings, yes=wish.yes)
    _start(plan.id, wish.reason, pace, wait=wish.wait, as_json=wish.as_json, more=_document(plan))


def _go_on(verb: Verb, said: str, wish: _Wish, *, alone: bool) -> None:
    if not alone or wish.cut or wish.execute or wish.dry_run:
        raise ValidationError("--resume goes on with what was started: leave out selectors and pace", field="resume")
    id_ = selecting.operation_id(said)
    settings = ground()
    from service.engine import operations

    found = operations.show(id_)
    if found.verb != verb:
        raise ValidationError(f"it is a {found.verb}: counterfoil outbox {found.verb} --resume {id_}", field="resume")
    announce(settings, f"resume of operation {id_}: {found.waiting} effects are left")
    operations.resume(id_, actor=person(), door="cli", reason=wish.reason or None)
    _follow(id_, wait=wish.wait, as_json=wish.as_json, more={})


def apply(
    plan: Annotated[str, typer.Argument(help="The plan's id, as it was shown.", metavar="PLAN")],
    *,
    reason: Reason = None,
    rate: Rate = None,
    canary: Canary = 0,
    failures_max: FailuresMax = None,
    batch: Batch = BATCH,
    wait: Wait = True,
    yes: Yes = False,
    as_json: talk.Json = False,
) -> None:
    """Carry out a plan that was shown before: exactly its frozen set; what has changed since is skipped and counted."""
    if not (reason or "").strip():
        raise ValidationError("--reason is needed; it is kept in the journal", field="reason")
    pace = Pace(selecting.per_second(rate), canary, failures_max, batch)
    known = selecting.operation_id(plan)
    settings = ground()
    from service.engine import operations

    found = operations.show(known)
    _confirm(Verb(found.verb), found.total, settings, yes=yes)
    _start(known, str(reason), pace, wait=wait, as_json=as_json, more={})


def _document(plan: Planned) -> dict[str, Any]:
    return {
        "plan": plan.id,
        "verb": plan.verb.value,
        "eligible": plan.eligible,
        "skipped": {reason: len(ids) for reason, ids in plan.skipped.items()},
        "money": dict(plan.money),
        "more": plan.more,
        "oldest": plan.oldest,
        "sample": [row["effect_id"] for row in plan.sample],
        "expires_at": plan.expires_at,
    }


def _show(plan: Planned, settings: Settings, *, as_json: bool) -> None:
    said = {"executed": False, **_document(plan)}
    if not as_json:
        del said["sample"]
    talk.record(said, as_json=as_json)
    if plan.sample and not as_json:
        sys.stdout.write("\n")
        talk.table(plan.sample, SAMPLE_COLUMNS, as_json=False)
    if plan.eligible and not as_json:
        rest = ", the oldest of more" if plan.more else ""
        talk.say(f"nothing was done at {target(settings)}; to do it to exactly these {plan.eligible}{rest}:")
        talk.say(f"counterfoil outbox apply {plan.id} --reason TEXT")
    raise typer.Exit(exits.DONE if plan.eligible else exits.NOTHING_MATCHED)


def _confirm(verb: Verb, count: int, settings: Settings, *, yes: bool) -> None:
    """Say where, and ask a person; without one, say what to add and leave. Never hangs."""
    done = _DONE[verb]
    announce(settings, f"{count} effects are {'to be ' if not yes else ''}{done}")
    talk.say("what is published cannot be called back; `ops cancel` stops the rest")
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        talk.say("nothing was done: there is no terminal to confirm it on; add --yes", must=True)
        raise typer.Exit(exits.CONFIRMATION_NEEDED)
    if count <= ASK_ABOVE:
        return
    if typer.prompt(f"Type {count} to go on", default="", show_default=False, err=True).strip() != str(count):
        talk.say("nothing was done", must=True)
        raise typer.Exit(exits.CONFIRMATION_NEEDED)


def _start(id_: str, reason: str, pace: Pace, *, wait: bool, as_json: bool, more: dict[str, Any]) -> None:
    from service.engine import operations

    operations.start(id_, reason=reason, actor=person(), door="cli", pace=pace)
    _follow(id_, wait=wait, as_json=as_json, more=more)


def _follow(id_: str, *, wait: bool, as_json: bool, more: dict[str, Any]) -> None:
    from service.engine import operations

    found = following.until_it_ends(id_) if wait else operations.show(id_)
    told = {"executed": True, "operation": id_, _DONE[Verb(found.verb)]: found.done, **more, **following.brief(found)}
    talk.record(told, as_json=as_json)
    if not as_json:
        talk.say(following.next_command(found))
    raise typer.Exit(following.exit_code(found, waited=wait, more=bool(more.get("more") or more.get("skipped"))))
