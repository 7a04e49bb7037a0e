"""`counterfoil doctor`: each thing that can be wrong, what it means and the command that mends it."""

from __future__ import annotations

from typing import Any

import typer

from service.cli import exits, talk


def doctor(as_json: talk.Json = False) -> None:
    """Check everything this needs to keep its promise; exit code 1 if a check fails."""
    from service import settings
    from service.cli.checks import run_all
    from service.telemetry import logs

    found = settings.load()
    logs.configure(found.model_copy(update={"log_level": "CRITICAL"}), process="cli")
    checks = [check.document() for check in run_all(found)]
    failed = [check for check in checks if not check["ok"]]
    if as_json:
        talk.emit({"ok": not failed, "checks": checks})
    else:
        for check in checks:
            _draw(check)
        talk.say(f"{len(failed)} of {len(checks)} checks failed" if failed else "all is well")
    raise typer.Exit(exits.ERROR if failed else exits.DONE)


def _draw(check: dict[str, Any]) -> None:
    mark = typer.style("✓", fg="green") if check["ok"] else typer.style("✗", fg="red")
    typer.echo(f"{mark} {check['name']}: {check['found']}")
    if not check["ok"]:
        typer.echo(f"    {check['meaning']}")
        typer.echo(f"    fix: {check['fix']}")
