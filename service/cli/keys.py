"""`counterfoil keys`: API keys, each shown once. A rotation leaves two live keys, so that no caller is ever without."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli import exits, talk
from service.cli.exits import examples
from service.cli.ground import ground, person
from service.core.errors import ValidationError

if TYPE_CHECKING:
    from service.engine.keys import Created

COLUMNS = ("id", "tenant", "name", "scopes", "state", "expires_at", "used_at", "rotates")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")

app = typer.Typer(help="API keys.", no_args_is_help=True)
Scope = Annotated[
    list[str],
    typer.Option(
        help="charges:write, refunds:write, emails:write, effects:read, operations:read, operations:write; repeatable."
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, cfk_… without its last part.")]


@app.command(
    "create",
    epilog=examples(
        "counterfoil keys create --name billing --scope charges:write --scope effects:read",
        "counterfoil keys create --name reports --tenant acme --scope effects:read --expires 90d --json",
        "counterfoil keys create --name shop --scope charges:write --rate 50 --burst 100",
    ),
)
def create(  # noqa: PLR0917 - each is an option, by name
    name: Annotated[str, typer.Option(help="Who uses it.")],
    scope: Scope,
    tenant: Annotated[str, typer.Option(help="Whose effects it sees and makes.")] = "default",
    expires: Annotated[str | None, typer.Option(help="After 90d, 12h, …; left out: never.")] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second; left out: no limit.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once; left out: a second's worth.")] = None,
    as_json: talk.Json = False,
) -> None:
    """Make a key. It is shown now and never again; at rest only its hash is kept."""
    ground()
    from service.engine import keys

    made = keys.create(
        tenant=tenant,
        name=name,
        scopes=scope,
        actor=person(),
        door="cli",
        expires_in=None if expires is None else seconds(expires, "expires"),
        per_second=rate,
        burst=burst,
    )
    _show(made, as_json=as_json)


@app.command(
    "list",
    epilog=examples(
        "counterfoil keys list", "counterfoil keys list --tenant acme --all", "counterfoil keys list --json | jq .id"
    ),
)
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Expired and revoked ones too.")] = False,
    as_json: talk.Json = False,
) -> None:
    """List keys, oldest first, without their secrets."""
    ground()
    from service.engine import keys

    found = [key.document() for key in keys.listed(tenant=tenant, whole=whole)]
    if not talk.table(found, COLUMNS, as_json=as_json):
        talk.say("there is no such key")
        raise typer.Exit(exits.NOTHING_MATCHED)


@app.command(
    "rotate",
    epilog=examples(
        "counterfoil keys rotate cfk_abcdefgh --grace 7d",
        "counterfoil keys rotate cfk_abcdefgh --grace 0s",
        "counterfoil keys rotate cfk_abcdefgh --grace 24h --json",
    ),
)
def rotate(
    id_: Id,
    grace: Annotated[str, typer.Option(help="How long the older one still lives: 7d, 24h, 0s.")] = "7d",
    as_json: talk.Json = False,
) -> None:
    """Make a key's heir, with the same rights; both live until the grace is over."""
    ground()
    from service.engine import keys

    _show(keys.rotate(id_, grace_seconds=seconds(grace, "grace"), actor=person(), door="cli"), as_json=as_json)
    talk.say(f"{id_} lives for {grace} more: change its callers before")


@app.command(
    "revoke",
    epilog=examples(
        "counterfoil keys revoke cfk_abcdefgh",
        "counterfoil keys revoke cfk_abcdefgh --reason 'leaked in a log'",
        "counterfoil keys revoke cfk_abcdefgh --json",
    ),
)
def revoke(
    id_: Id,
    reason: Annotated[str | None, typer.Option(help="For the operators' log.")] = None,
    as_json: talk.Json = False,
) -> None:
    """End a key. No API process takes it a second later."""
    ground()
    from service.engine import keys

    key = keys.revoke(id_, actor=person(), door="cli", reason=reason)
    if as_json:
        talk.emit(key.document())
    else:
        talk.say(f"{key.id} is revoked")


def seconds(text: str, field: str) -> float:
    """`90d`, `12h`, `30m`, `10s`, `2w` in seconds. Raises ValidationError."""
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise ValidationError(f"{field}: a number and a unit, such as 30m, 12h, 7d or 2w", field=field)
    return float(int(found.group(1)) * _UNITS[found.group(2)])


def _show(made: Created, *, as_json: bool) -> None:
    if as_json:
        talk.emit({**made.key.document(), "key": made.secret})
        return
    talk.record(made.key.document(), as_json=False)
    # Alone on its line of stdout, so that it can be taken; a terminal's scroll-back is the only copy.
    typer.echo(f"key         {made.secret}")
    talk.say("the key is shown this once; only its hash is kept")
