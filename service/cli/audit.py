"""`counterfoil audit`: our books beside the provider's; exit code 1 when anything does not agree."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import audit_breaks, exits, talk
from service.cli.exits import examples
from service.cli.ground import ground, person
from service.core.errors import ValidationError

if TYPE_CHECKING:
    from service.engine.audit import Report

SHOWN_MAX = 50  # more than a person reads on a terminal; `breaks list` and --csv have all of them
EXAMPLES = (
    "counterfoil audit",
    "counterfoil audit --since 2026-11-01 --until 2026-12-01 --csv november.csv",
    "counterfoil audit --since 36h --lag 7200 --json",
    "counterfoil audit --mail-ledger accepted.jsonl",
    "counterfoil audit breaks list",
)

_AGO = re.compile(r"(\d{1,6})([mhd])\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

app = typer.Typer(
    help="Compare our books with the provider's. Exit code 1: something does not agree.", invoke_without_command=True
)
app.add_typer(audit_breaks.app, name="breaks")


@app.callback(epilog=examples(*EXAMPLES))
def audit(
    context: typer.Context,
    *,
    since: Annotated[
        str | None, typer.Option(help="From: a time (2026-11-01T00:00Z), or 36h, 7d ago. Default: the last audit.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Up to and without: the same. Default: now less the settle lag.")
    ] = None,
    lag: Annotated[
        float | None,
        typer.Option(min=0, help="Settle lag in seconds: what is younger waits for the next audit. Default: an hour."),
    ] = None,
    mail_ledger: Annotated[
        str | None, typer.Option(help="What the mail provider accepted: a file or URL (JSON lines, CSV, JSON).")
    ] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write every break found to this file.")] = None,
    as_json: talk.Json = False,
) -> None:
    """Compare our books with the provider's. Exit code 1: something does not agree."""
    if context.invoked_subcommand is not None:
        return
    settings = ground()
    from service.cli.progress import shown
    from service.engine.audit import Wish, run

    now = datetime.now(UTC)
    wish = Wish(_moment(since, now, "since"), _moment(until, now, "until"), lag, mail_ledger)
    with shown(silent=as_json) as progress:
        report = run(settings, wish, actor=person(), progress=progress)
    found = _first_breaks(report)
    if csv_file:
        _write(csv_file, report)
    if as_json:
        talk.emit({**_document(report), "breaks": found, "more": report.found > len(found)})
    else:
        _tell(report, found)
    raise typer.Exit(exits.ERROR if report.found else exits.DONE)


def _moment(words: str | None, now: datetime, field: str) -> datetime | None:
    if words is None:
        return None
    ago = _AGO.match(words.strip())
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})
        found = datetime.fromisoformat(words.strip())
    except (ValueError, OverflowError):
        raise ValidationError(
            f"--{field} is a time like 2026-11-01 or 2026-11-01T09:30+01:00 (UTC unless it says), or 36h, 7d ago",
            field=field,
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _first_breaks(report: Report) -> list[dict[str, Any]]:
    from service.store import audits
    from service.store.database import statement

    with statement() as connection:
        return list(audits.listed(connection, audit=report.audit, limit=1000))


def _write(path: Path, report: Report) -> None:
    from service.store import audits
    from service.store.database import statement

    try:
        with path.open("w", encoding="utf-8", newline="") as file, statement() as connection:
            writer = csv.DictWriter(file, audit_breaks.FIELDS, extrasaction="ignore")
            writer.writeheader()
            for row in audits.of_audit(connection, report.audit):
                writer.writerow({name: talk.text(value) for name, value in row.items() if value is not None})
    except OSError as error:
        raise ValidationError(f"--csv cannot be written: {error.strerror}", field="csv") from None


def headline(report: Report) -> str:
    """The one number that must be 1."""
    if not report.objects:
        return "money objects per effect: no money has moved in this window"
    most = max(report.objects)
    if most == 1:
        return f"money objects per effect: 1 ({report.objects[1]} effects)"
    whole = ", ".join(f"{objects} ({count} effects)" for objects, count in sorted(report.objects.items()))
    return f"money objects per effect: {most}, and must be 1: {whole}"


def _document(report: Report) -> dict[str, Any]:
    return {
        "audit": report.audit,
        "since": report.since,
        "until": report.until,
        "ok": not report.found,
        "money_objects_per_effect": max(report.objects, default=None),
        "effects_by_money_objects": {str(objects): effects for objects, effects in report.objects.items()},
        "classes": dict(report.breaks),
        "new": dict(report.new),
        "sums": list(report.sums),
        "seen": dict(report.seen),
        "effects": report.effects,
        "seconds": round(report.seconds, 1),
        "unchecked": dict(report.unchecked),
    }


def _tell(report: Report, found: list[dict[str, Any]]) -> None:
    from service.store.audit_duties import CHECKS

    typer.echo(headline(report))
    span = f"{report.since.isoformat(timespec='seconds')} to {report.until.isoformat(timespec='seconds')}"
    talk.say(f"audit {report.audit}: {span}, {report.effects} effects compared in {report.seconds:.0f} s")
    if purged := report.unchecked.get("requests_purged"):
        talk.say(f"{purged} requests are purged: their receipts, recipients and customers cannot be checked any more; "
                 "their money can")  # fmt: skip
    if facts_from := report.unchecked.get("no_facts_before"):
        talk.say(f"facts before {facts_from:%Y-%m-%d} were dropped: doubt and late answers of then cannot be checked")
    if report.sums:
        sums = [{**row, "difference": row["provider"] - row["own"]} for row in report.sums]
        talk.table(sums, ("currency", "own", "provider", "difference", "fees"), as_json=False)
    classes = [
        {
            "class": check.name,
            "breaks": report.breaks[check.name],
            "new": report.new[check.name],
            "means": check.meaning,
        }
        for check in CHECKS
        if report.breaks[check.name]
    ]
    if not classes:
        talk.say("both sides agree")
        return
    talk.table(classes, ("class", "breaks", "new", "means"), as_json=False)
    talk.table(audit_breaks.shown(found[:SHOWN_MAX]), audit_breaks.COLUMNS, as_json=False)
    if report.found > SHOWN_MAX:
        talk.say(f"{SHOWN_MAX} of {report.found} breaks: counterfoil audit breaks list shows all that are open")
    talk.say("what to do about each class: docs/audit.md")
