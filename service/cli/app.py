"""The tree of commands. Nothing heavy is imported before a command needs it, so that `--help` answers at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service.cli import (
    audit,
    chaos,
    config,
    db,
    doctor,
    effects,
    keys,
    lanes,
    money,
    ops,
    outbox,
    recover,
    run,
    send,
    talk,
    top,
    up,
)
from service.cli.exits import MEANINGS, examples

app = typer.Typer(
    name="counterfoil",
    help="Charges and e-mails that happen exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=f"Exit codes: {MEANINGS}",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _all(
    context: typer.Context,
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No remarks on stderr; errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log everything; a bug shows where.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR=1 does the same.")] = False,
) -> None:
    if verbose:
        os.environ["COUNTERFOIL_LOG_LEVEL"] = "DEBUG"  # what this process starts is as talkative
    plain = no_color or bool(os.environ.get("NO_COLOR"))
    talk.manner(quiet=quiet, colour=not plain)
    if plain:
        context.color = False  # click's own colours


@app.command(
    "demo",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    help="Watch 200 charges happen exactly once while processes are being killed.",
)
def _demo(context: typer.Context) -> None:
    from service.cli.demo import demo

    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command()(demo)
    alone(args=context.args, prog_name="counterfoil demo")


app.command(
    "up",
    epilog=examples("counterfoil up", "counterfoil up --only api,relay", "COUNTERFOIL_API_PORT=8080 counterfoil up"),
)(up.up)
app.command(
    "doctor",
    epilog=examples(
        "counterfoil doctor", "counterfoil doctor --json", "counterfoil doctor || counterfoil outbox stats"
    ),
)(doctor.doctor)
app.add_typer(config.app, name="config")
for _name, _program in run.PROGRAMS.items():
    app.command(_name, epilog=examples(*run.EXAMPLES[_name]), context_settings=run.CONTEXTS[_name])(_program)
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.command("charge", epilog=examples(*send.CHARGE_EXAMPLES))(send.charge)
app.command("email", epilog=examples(*send.EMAIL_EXAMPLES))(send.email)
app.command("refund", epilog=examples(*money.REFUND_EXAMPLES))(money.refund)
app.command("capture", epilog=examples(*money.CAPTURE_EXAMPLES))(money.capture)
app.command("cancel", epilog=examples(*money.CANCEL_EXAMPLES))(money.cancel)
app.add_typer(effects.app, name="effects")
app.add_typer(outbox.app, name="outbox")
app.add_typer(ops.app, name="ops")
app.add_typer(lanes.app, name="lanes")
app.command("top", epilog=examples(*top.EXAMPLES))(top.top)
app.add_typer(audit.app, name="audit")
app.command("recover", epilog=examples(*recover.EXAMPLES))(recover.recover)
app.command("chaos", epilog=examples(*chaos.EXAMPLES), add_help_option=False, context_settings=chaos.CONTEXT)(
    chaos.chaos
)
