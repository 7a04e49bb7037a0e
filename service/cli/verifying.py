"""`counterfoil effects verify` asks the provider what became of effects; `resolve` lets a person settle one.

The verbs are the engine's; here are only options, words and exit codes.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.ground import announce, effect_id, ground, person
from service.core.errors import EffectNotFound, ValidationError
from service.core.state import State

if TYPE_CHECKING:
    from service.engine.kind import Kind
    from service.engine.resolve import Resolution, Wish
    from service.engine.verify import Verdict

COLUMNS = ("effect_id", "kind", "before", "state", "finding", "answer", "reason")
SELECTABLE = (State.UNKNOWN, State.PARKED, State.AWAITING)
PROGRESS_EACH = 25  # effects; each is a call or two to the provider
VERIFY_EXAMPLES = (
    "counterfoil effects verify 019a2f6e-0000-7000-8000-000000000017",
    "counterfoil effects verify --state unknown",
    "counterfoil effects verify --state parked --kind charge --limit 500 --json",
    "Here 0: all agree or are settled; 4: some are undecided; 6: a contradiction; 7: the provider does not answer.",
)
RESOLVE_EXAMPLES = (
    "counterfoil effects resolve ID --as succeeded --ref pi_123 --reason INC-42 --evidence 'seen in the dashboard'",
    "counterfoil effects resolve ID --as failed --reason INC-42 --evidence 'the mail log has no such Message-ID' --yes",
    "counterfoil effects resolve ID --as pending --reason INC-42 --evidence 'looked for it twice, an hour apart'",
    "Here 6: the effect, the provider or missing proof forbids it; 7: it does not answer. Nothing is written.",
)


def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Effects' ids; - reads stdin.", metavar="ID...")] = None,
    *,
    state: Annotated[State | None, typer.Option(help="unknown, parked or awaiting, instead of ids.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, refund, email, ….")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many, the oldest first.")] = 100,
    as_json: talk.Json = False,
) -> None:
    """Ask the provider now. Settles what it has an outcome for; never sends, never overwrites what is final."""
    if bool(ids) == (state is not None):
        raise ValidationError("say what to verify: ids, or --state unknown or parked", field="ids")
    if state is not None and state not in SELECTABLE:
        raise ValidationError("only unknown, parked and awaiting effects can be selected by state", field="state")
    ground()
    chosen = _chosen([effect_id(one) for one in _given(ids or [])], state, kind, limit)
    if not chosen:
        talk.say("no effect matched")
        raise typer.Exit(exits.NOTHING_MATCHED)
    counts: Counter[str] = Counter()
    drawn = sys.stdout.isatty() and not as_json
    shown: list[dict[str, Any]] = []
    for verdict in _verdicts(chosen):
        counts[verdict.finding.value] += 1
        shown.append(asdict(verdict))
        if not drawn:  # as they come: whoever reads a pipe need not wait for the last one
            talk.table([shown.pop()], COLUMNS, as_json=as_json)
        if (asked := counts.total()) % PROGRESS_EACH == 0:
            talk.say(f"{asked} of {len(chosen)} asked: {_summary(counts)}")
    if drawn:
        talk.table(shown, COLUMNS, as_json=False)
    talk.say(f"{len(chosen)} asked: {_summary(counts)}")
    raise typer.Exit(_code(counts))


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {finding}" for finding, count in sorted(counts.items()))


def _code(counts: Counter[str]) -> int:
    if counts["contradiction"]:
        return exits.REFUSED
    if counts["no_answer"]:
        return exits.UNREACHABLE
    return exits.PARTLY_DONE if counts["undecided"] or counts["busy"] else exits.DONE


def _given(ids: Sequence[str]) -> list[str]:
    piped = [line.strip() for line in sys.stdin if line.strip()] if "-" in ids else []
    return list(dict.fromkeys([one for one in ids if one != "-"] + piped))


def _chosen(ids: Sequence[str], state: State | None, kind: str | None, limit: int) -> list[tuple[str, str]]:
    """Ids with their kinds. Raises EffectNotFound for an id that is none."""
    from service.store import effects, outbox
    from service.store.database import statement

    with statement() as connection:
        if state is not None:
            rows = outbox.rows(connection, {"state": state.value, "kind": kind}, limit=limit)
            return [(row["effect_id"], row["kind"]) for row in rows]
        found = effects.kinds_of(connection, ids[:limit])
    missing = [one for one in ids[:limit] if one not in found]
    if missing:
        raise EffectNotFound(f"no effect {missing[0]}")
    return [(one, found[one]["kind"]) for one in ids[:limit] if kind in (None, found[one]["kind"])]


def _verdicts(chosen: Sequence[tuple[str, str]]) -> Iterator[Verdict]:
    from service import settings
    from service.engine.verify import verify as look

    for one, name in chosen:
        yield look(_kind(name), one, actor=person(), seconds=settings.load().provider_deadline)


def _kind(name: str) -> Kind:
    from tasks import task_of

    return task_of(name).kind


def resolve(
    id_: Annotated[str, typer.Argument(help="The effect's id.", metavar="ID")],
    *,
    as_: Annotated[str, typer.Option("--as", help="succeeded, failed, or pending (send it; only on proof).")],
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")],
    evidence: Annotated[str, typer.Option(help="What you have seen and where; kept in the journal.")],
    ref: Annotated[str | None, typer.Option(help="The provider's id of it, with --as succeeded: pi_….")] = None,
    against_provider: Annotated[
        bool, typer.Option("--against-provider", help="Insist when the provider contradicts; opens a break.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the words, say what would be done, ask nobody.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")] = False,
    as_json: talk.Json = False,
) -> None:
    """Settle one unknown or parked effect. The provider is asked first; what it contradicts is not written."""
    from service.engine.resolve import As, Wish, check

    if as_ not in tuple(As):
        raise ValidationError("--as takes succeeded, failed or pending", field="as")
    wish = Wish(As(as_), reason, evidence, ref, against_provider)
    check(wish)
    settings = ground()
    from service.engine.resolve import Ending
    from service.engine.resolve import resolve as settle

    [(known, name)] = _chosen([effect_id(id_)], None, None, 1)
    announce(settings, f"{known}, a {name}, {'would' if dry_run else 'is to'} be settled as {wish.as_.value}")
    if dry_run:
        raise typer.Exit(exits.DONE)
    if not yes:
        _confirm(wish)
    done = settle(_kind(name), known, wish, actor=person(), seconds=settings.provider_deadline)
    _tell(done, as_json=as_json)
    codes = {Ending.RESOLVED: exits.DONE, Ending.REFUSED: exits.REFUSED, Ending.NO_ANSWER: exits.UNREACHABLE}
    raise typer.Exit(codes[done.ending])


def _confirm(wish: Wish) -> None:
    """Ask a person; without one, say what to add and leave. Never hangs."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        talk.say("nothing was done: there is no terminal to confirm it on; add --yes", must=True)
        raise typer.Exit(exits.CONFIRMATION_NEEDED)
    final = "" if wish.as_.value == "pending" else " for ever"
    talk.say(f"it will stand as {wish.as_.value}{final}, if the provider does not contradict")
    typed = typer.prompt(f"Type {wish.as_.value} to go on", default="", show_default=False, err=True)
    if typed.strip() != wish.as_.value:
        talk.say("nothing was done")
        raise typer.Exit(exits.CONFIRMATION_NEEDED)


def _tell(done: Resolution, *, as_json: bool) -> None:
    document = {name: value for name, value in asdict(done).items() if value not in ("", ())}
    talk.record({name: list(v) if isinstance(v, tuple) else v for name, v in document.items()}, as_json=as_json)
    if not as_json and done.why:
        talk.say(done.why)
