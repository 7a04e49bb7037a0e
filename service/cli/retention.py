"""`counterfoil db prune` and `counterfoil effects erase`: what goes after its time, and what goes before it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.ground import announce, effect_id, ground, person
from service.core.errors import ValidationError

if TYPE_CHECKING:
    from service.engine import erasure, retention

SHOWN_MAX = 20

PRUNE_EXAMPLES = (
    "counterfoil db prune",
    "counterfoil db prune --execute --seconds 600",
    "COUNTERFOIL_PAYLOAD_DAYS=30 counterfoil db prune --json",
)
ERASE_EXAMPLES = (
    "counterfoil effects erase --to ada@example.test",
    'counterfoil effects erase --to ada@example.test --execute --reason "request 17"',
    'counterfoil effects erase --id 019a2f6e-0000-7000-8000-000000000017 --execute --reason "wrong body"',
)

Execute = Annotated[bool, typer.Option("--execute", help="Do it; without it nothing is written.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, which is the default.")]


def prune(
    execute: Execute = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop after so long, and go on another time.")] = None,
    pace: Annotated[
        float, typer.Option(min=0, max=100, help="Rest after each batch, in its own lengths; 0 is without.")
    ] = 1.0,
    dry_run: DryRun = False,
    as_json: talk.Json = False,
) -> None:
    """Let go what is older than COUNTERFOIL_PAYLOAD_DAYS: requests of settled effects, old events and plans.

    Keys, fingerprints, amounts and outcomes stay for ever; months of the journal as COUNTERFOIL_JOURNAL_MONTHS says.
    """
    from service.cli.progress import shown
    from service.engine import retention

    _not_both(execute, dry_run)
    settings = ground()
    if not execute:
        found = retention.plan(settings)
        _tell_plan(found, as_json=as_json)
        raise typer.Exit(exits.NOTHING_MATCHED if found.empty else exits.DONE)
    announce(settings, "requests and events whose time is over are let go")
    with shown(silent=as_json) as progress:
        done = retention.prune(
            settings, actor=person(), door="cli", seconds=seconds or float("inf"), pace=pace, progress=progress
        )
    if as_json:
        talk.emit({**asdict(done), "ok": done.complete})
    else:
        talk.say(
            f"{done.requests} requests, {done.events} events, {done.items} items of plans and "
            f"{len(done.months)} months of the journal are gone{_kept(done.kept)}"
        )
        if not done.complete:
            talk.say("the time was over before the end: run it again, it goes on where it was")
    raise typer.Exit(exits.DONE if done.complete else exits.PARTLY_DONE)


def _not_both(execute: bool, dry_run: bool) -> None:
    if execute and dry_run:
        raise ValidationError("--execute and --dry-run contradict each other", field="execute")


def _tell_plan(found: retention.Plan, *, as_json: bool) -> None:
    if as_json:
        talk.emit({**asdict(found), "execute": False})
        return
    if found.requests_before is None:
        talk.say("requests are kept for ever (COUNTERFOIL_PAYLOAD_DAYS=0)")
    else:
        when = found.requests_before.isoformat(timespec="seconds")
        talk.say(f"{found.requests} requests ({_bytes(found.bytes)}) of effects settled before {when}")
    rows: list[dict[str, Any]] = [
        {"what": "requests", "count": found.requests, "bytes": found.bytes, "kept_because": None},
        *({"what": "requests", "count": n, "bytes": None, "kept_because": why} for why, n in found.kept.items()),
        {"what": "events of the inbox", "count": found.events, "bytes": None, "kept_because": None},
        {"what": "plans that nobody started", "count": found.plans, "bytes": None, "kept_because": None},
        {"what": "items of ended operations", "count": found.items, "bytes": None, "kept_because": None},
        *({"what": m.name, "count": m.facts, "bytes": m.bytes, "kept_because": m.kept} for m in found.months),
    ]
    talk.table(rows, ("what", "count", "bytes", "kept_because"), as_json=False)
    talk.say("nothing was written: --execute does it" if not found.empty else "nothing is old enough")


def erase(  # noqa: PLR0917 - Typer's options
    ids: Annotated[list[str] | None, typer.Option("--id", help="This effect, and the receipts it caused.")] = None,
    to: Annotated[
        str | None, typer.Option(help="All that was written to this address, and the charges behind.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the journal, so name nobody.")] = None,
    execute: Execute = False,
    dry_run: DryRun = False,
    as_json: talk.Json = False,
) -> None:
    """Erase what settled effects say of a person: addresses, subjects, bodies, descriptions, metadata.

    Keys, amounts, outcomes and the journal stay. What is not settled is refused.
    """
    from service.cli.progress import shown
    from service.engine import erasure

    _not_both(execute, dry_run)
    settings = ground()
    if execute and not (reason and reason.strip()):
        raise ValidationError("--execute needs --reason; it is kept in the journal", field="reason")
    with shown(silent=as_json) as progress:
        found = erasure.plan([effect_id(one) for one in ids or ()], to=to, tenant=tenant, progress=progress)
    if execute and found.ids:
        announce(settings, f"the requests of {len(found.ids)} effects are erased for ever")
    done = erasure.erase(found.ids, reason=str(reason), actor=person(), to=to) if execute else ()
    if as_json:
        talk.emit({**asdict(found), "erased": done, "execute": execute, "way_out": erasure.WAY_OUT})
    else:
        _tell_erasure(found, done, execute=execute)
    raise typer.Exit(_code(found))


def _tell_erasure(found: erasure.Plan, done: tuple[str, ...], *, execute: bool) -> None:
    from service.engine import erasure

    rows = [
        *({"id": one, "what": "erased" if one in set(done) else "to be erased"} for one in found.ids),
        *({"id": one, "what": "refused: not settled"} for one in found.unsettled),
        *({"id": one, "what": "erased or purged before"} for one in found.erased_before),
        *({"id": one, "what": "no such effect"} for one in found.unknown),
    ]
    talk.table(rows[:SHOWN_MAX], ("id", "what"), as_json=False)
    if len(rows) > SHOWN_MAX:
        talk.say(f"{SHOWN_MAX} of {len(rows)} are shown; --json shows all")
    talk.say(f"{len(done)} erased" if execute else f"{len(found.ids)} would be erased; --execute --reason … does it")
    if found.unsettled:
        talk.say(f"{len(found.unsettled)} refused: {erasure.WAY_OUT}", style="yellow")
    if found.quoting:
        talk.say(
            f"{found.quoting} have an outcome or a fact that quotes the address: somebody wrote it there, and the "
            "journal is append-only (docs/retention.md)",
            style="yellow",
        )


def _code(found: erasure.Plan) -> int:
    if found.unsettled:
        return exits.PARTLY_DONE if found.ids else exits.REFUSED
    return exits.DONE if found.ids else exits.NOTHING_MATCHED


def _kept(why: dict[str, int]) -> str:
    return f"; kept because of {', '.join(f'{name}: {n}' for name, n in why.items())}" if why else ""


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
