"""`counterfoil lanes`: what waits in each Celery queue, and pausing one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from service.cli import talk
from service.cli.exits import examples
from service.cli.ground import announce, ground, person
from service.core.errors import ValidationError

COLUMNS = ("name", "waiting", "held", "in_flight", "parked", "oldest_seconds", "paused_by", "pause_reason")

app = typer.Typer(help="Lanes (Celery queues): what waits in each, pause and resume.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The lane's name.", metavar="LANE")]


@app.command(
    "list",
    epilog=examples("counterfoil lanes list", "counterfoil lanes list --json", "counterfoil lanes list --output csv"),
)
def list_lanes(output: talk.Output = None, as_json: talk.Json = False) -> None:
    """List lanes with what waits, is held by a pause, in flight and parked."""
    settings = ground()
    from service.engine import lanes

    rows = [asdict(lane) for lane in lanes.listed(settings.lane_names)]
    talk.table(rows, COLUMNS, as_json=as_json, output=output)


@app.command(
    "pause",
    epilog=examples(
        "counterfoil lanes pause email --reason 'wrong template, INC-44'",
        "counterfoil lanes pause charge --reason 'Stripe asks us to stop' --json",
        "counterfoil lanes pause charge --reason INC-45 && counterfoil top",
    ),
)
def pause(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; whoever finds the lane paused reads it.")],
    as_json: talk.Json = False,
) -> None:
    """Publish nothing of a lane until `resume`. What workers have already goes on; nothing is lost or changed."""
    settings = ground()
    from service.engine import lanes

    if name not in settings.lane_names:
        known = ", ".join(settings.lane_names)
        raise ValidationError(f"there is no lane {name!r}; COUNTERFOIL_LANES names {known}", field="lane")
    announce(settings, f"pause of lane {name}")
    lanes.pause(name, reason=reason, actor=person(), door="cli")
    talk.record({"lane": name, "paused": True}, as_json=as_json)
    if not as_json:
        talk.say(f"go on with: counterfoil lanes resume {name}")


@app.command(
    "resume",
    epilog=examples(
        "counterfoil lanes resume email",
        "counterfoil lanes resume charge --reason 'Stripe is back'",
        "counterfoil lanes resume charge --json",
    ),
)
def resume(
    name: Name,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the operators' log.")] = None,
    as_json: talk.Json = False,
) -> None:
    """Publish again; what was held comes due in its old order."""
    announce(ground(), f"resume of lane {name}")
    from service.engine import lanes

    lanes.resume(name, actor=person(), door="cli", reason=reason)
    talk.record({"lane": name, "paused": False}, as_json=as_json)
    if not as_json:
        talk.say("see it go: counterfoil lanes list")
