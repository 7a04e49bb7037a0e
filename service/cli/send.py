"""`counterfoil charge` and `counterfoil email`: accept one effect by hand, through the same door as everybody."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from service.cli import exits, talk
from service.cli.ground import ground
from service.core.errors import ValidationError

CHARGE_EXAMPLES = (
    "counterfoil charge --amount 4200 --currency eur --payment-method pm_card_visa --key order:17:charge",
    "counterfoil charge --amount 900 --currency usd --payment-method pm_1 --customer cus_1 --key order:18 --wait 10",
    "counterfoil charge --amount 900 --currency usd --payment-method pm_1 --metadata order=19 --key order:19 --json",
)
EMAIL_EXAMPLES = (
    "counterfoil email --to ada@example.com --subject Welcome --text 'Hello Ada' --key user:7:welcome",
    "counterfoil email --to ada@example.com --subject Welcome --text 'Hello Ada' --key user:7:welcome --wait 10 --json",
    "counterfoil email --to ada@example.com --subject Code --text 417 --policy at_most_once --key user:7:code:3",
)
_DIGITS = re.compile(r"-?[0-9]{1,18}\Z", re.ASCII)  # what is negative is refused with the others, by its field
_WAIT_CODES = {"succeeded": exits.DONE, "failed": exits.ERROR}

Key = Annotated[str, typer.Option("--key", help="The effect's name, the same on every try: order:17:charge.")]
Wait = Annotated[
    float | None,
    typer.Option("--wait", min=0, max=3600, help="Seconds to wait for the outcome; 1 if it failed, 4 if not settled."),
]


def minor_units(said: str) -> int:
    """Digits and nothing else: "4200.0" may be meant as 42.00 or as 4200.00."""
    if not _DIGITS.match(said):
        raise typer.BadParameter("minor units are digits only: 4200 is 42.00 eur")
    return int(said)


def charge(
    *,
    amount: Annotated[int, typer.Option(parser=minor_units, metavar="INTEGER", help="Minor units: 4200 is 42.00 eur.")],
    currency: Annotated[str, typer.Option(help="Lowercase ISO-4217.")],
    payment_method: Annotated[str, typer.Option(help="The provider's token: pm_…, never a card number.")],
    key: Key,
    customer: Annotated[str | None, typer.Option(help="cus_…")] = None,
    receipt_email: Annotated[str | None, typer.Option(help="Gets one receipt when the charge has succeeded.")] = None,
    description: Annotated[str | None, typer.Option(help="Stands in the receipt.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value, repeatable.")] = None,
    capture_method: Annotated[
        str | None, typer.Option(help="manual only holds the money, until `counterfoil capture` or `cancel`.")
    ] = None,
    wait: Wait = None,
    as_json: talk.Json = False,
) -> None:
    """Accept one charge; a worker carries it out exactly once."""
    request = {
        "amount": amount,
        "currency": currency,
        "payment_method": payment_method,
        "customer": customer,
        "receipt_email": receipt_email,
        "description": description,
        "metadata": pairs(metadata or []) or None,
        "capture_method": capture_method,
    }
    accept("charge", request, key, wait, as_json=as_json)


def email(
    *,
    to: Annotated[str, typer.Option(help="One address.")],
    subject: Annotated[str, typer.Option(help="One line.")],
    text: Annotated[str, typer.Option(help="The letter.")],
    key: Key,
    html: Annotated[str | None, typer.Option(help="The letter once more, as HTML.")] = None,
    sender: Annotated[str | None, typer.Option(help="Default: COUNTERFOIL_EMAIL_SENDER.")] = None,
    policy: Annotated[str | None, typer.Option(help="After an unknown outcome: at_least_once or at_most_once.")] = None,
    wait: Wait = None,
    as_json: talk.Json = False,
) -> None:
    """Accept one e-mail; a worker sends it, exactly once where the provider can."""
    request = {"to": to, "subject": subject, "text": text, "html": html, "sender": sender, "policy": policy}
    accept("email", request, key, wait, as_json=as_json)


def pairs(given: list[str]) -> dict[str, str]:
    """`name=value` options as a mapping. Raises ValidationError."""
    found = dict(item.partition("=")[::2] for item in given)
    if any("=" not in item for item in given) or len(found) < len(given):
        raise ValidationError("--metadata takes name=value, each name once", field="metadata")
    return found


def accept(kind: str, request: dict[str, Any], key: str, wait: float | None, *, as_json: bool) -> None:
    """Accept one effect, print it, wait for its outcome if asked to, and leave with the exit code that tells it."""
    ground()
    from tasks import task_of

    task = task_of(kind)
    said = {name: value for name, value in request.items() if value is not None}
    result = task.apply_async(kwargs=said, dedupe_key=key)
    answer: dict[str, Any] = {"id": result.id, "kind": kind, "state": result.state.value, "created": result.created}
    code = exits.DONE
    if wait is not None:
        try:
            answer["outcome"] = result.get(timeout=wait)
            code = _WAIT_CODES[answer["outcome"]["state"]]
        except TimeoutError:
            code = exits.PARTLY_DONE
        answer["state"] = result.state.value
    talk.record(answer, as_json=as_json)
    if not as_json and code != exits.DONE:
        talk.say(f"see what happened: counterfoil effects show {result.id}")
    raise typer.Exit(code)
