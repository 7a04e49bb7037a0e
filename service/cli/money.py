"""`counterfoil refund`, `capture` and `cancel`: act upon a charge by hand, through the same door as everybody."""

from __future__ import annotations

from typing import Annotated

import typer

from service.cli import send, talk

_CHARGE = "019a2f6e-0000-7000-8000-000000000017"
REFUND_EXAMPLES = (
    f"counterfoil refund --charge {_CHARGE} --amount 1200 --currency eur --key order:17:refund",
    f"counterfoil refund --charge {_CHARGE} --amount 1200 --currency eur --key order:17:refund --wait 10 --json",
    f"counterfoil refund --charge {_CHARGE} --amount 500 --currency eur --reason duplicate --key order:17:refund:2",
)
CAPTURE_EXAMPLES = (
    f"counterfoil capture --charge {_CHARGE} --amount 4200 --currency eur --key order:17:capture",
    f"counterfoil capture --charge {_CHARGE} --amount 4200 --currency eur --key order:17:capture --wait 10 --json",
    f"counterfoil capture --charge {_CHARGE} --amount 3000 --currency eur --key order:17:capture:part",
)
CANCEL_EXAMPLES = (
    f"counterfoil cancel --charge {_CHARGE} --key order:17:cancel",
    f"counterfoil cancel --charge {_CHARGE} --reason abandoned --key order:17:cancel --wait 10 --json",
    f"counterfoil cancel --charge {_CHARGE} --reason requested_by_customer --key order:17:cancel",
)

Charge = Annotated[str, typer.Option("--charge", help="The charge's effect id, as `counterfoil charge` printed it.")]
Currency = Annotated[str, typer.Option(help="The charge's.")]


def refund(
    *,
    charge: Charge,
    amount: Annotated[
        int,
        typer.Option(
            parser=send.minor_units, metavar="INTEGER", help="Minor units; the charge's amount or a part of it."
        ),
    ],
    currency: Currency,
    key: send.Key,
    reason: Annotated[
        str | None, typer.Option(help="duplicate, fraudulent (blocks the card) or requested_by_customer.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value, repeatable.")] = None,
    wait: send.Wait = None,
    as_json: talk.Json = False,
) -> None:
    """Accept one refund; it begins when the charge has succeeded."""
    request = {
        "charge": charge,
        "amount": amount,
        "currency": currency,
        "reason": reason,
        "metadata": send.pairs(metadata or []) or None,
    }
    send.accept("refund", request, key, wait, as_json=as_json)


def capture(
    *,
    charge: Charge,
    amount: Annotated[
        int,
        typer.Option(parser=send.minor_units, metavar="INTEGER", help="Minor units; what is not taken is released."),
    ],
    currency: Currency,
    key: send.Key,
    wait: send.Wait = None,
    as_json: talk.Json = False,
) -> None:
    """Accept one capture: takes what an authorised charge holds, once."""
    send.accept("capture", {"charge": charge, "amount": amount, "currency": currency}, key, wait, as_json=as_json)


def cancel(
    *,
    charge: Charge,
    key: send.Key,
    reason: Annotated[
        str | None, typer.Option(help="duplicate, fraudulent, requested_by_customer or abandoned.")
    ] = None,
    wait: send.Wait = None,
    as_json: talk.Json = False,
) -> None:
    """Accept one cancellation: releases what an authorised charge holds."""
    send.accept("cancel", {"charge": charge, "reason": reason}, key, wait, as_json=as_json)
