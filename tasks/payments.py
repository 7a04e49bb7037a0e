"""`charge`: money moves once. The card is a provider's token, the amount an integer of minor units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from uuid_utils import uuid7

from service import settings
from service.core.effect import Attempt, Order, Policy
from service.core.keys import fingerprint
from service.core.money import format_money
from service.core.outcome import Succeeded
from service.engine.kind import Kind
from service.providers.build import charge_provider
from service.providers.ports import Provider
from tasks.app import app
from tasks.arguments import ChargeArguments
from tasks.effect_task import EffectTask
from tasks.mail import Address, EmailRequest, receipt_sender
from tasks.requests import Metadata, MoneyRequest


class ChargeRequest(MoneyRequest):
    """What `charge.apply_async(kwargs=…)` takes. Limits are Stripe's (API reference, PaymentIntents; Metadata)."""

    payment_method: Annotated[str, StringConstraints(pattern=r"^(pm|card|src|ba)_[A-Za-z0-9_]{1,250}$")]
    customer: Annotated[str, StringConstraints(pattern=r"^cus_[A-Za-z0-9_]{1,250}$")] | None = None
    receipt_email: Address | None = None
    """Causes one `email` effect when the charge has succeeded; Stripe's own receipts stay off."""
    description: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    statement_descriptor_suffix: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,22}$")] | None = None
    metadata: Metadata = Field(default_factory=dict)
    off_session: bool = True
    capture_method: Literal["automatic", "manual"] = "automatic"
    """`manual` only holds the money: the charge awaits a `capture` or a `cancel`, which are effects of their own."""


@cache
def _provider(pid: int) -> Provider:  # noqa: ARG001 - the pid is the key: sockets do not survive a fork
    return charge_provider(settings.load())


def receipt(attempt: Attempt, outcome: Succeeded) -> list[Order]:
    """The receipt of a succeeded charge, accepted in the settling commit: one e-mail, caused by the charge."""
    to = attempt.request.get("receipt_email")
    if not to:
        return []
    # Less than was asked for when a capture took only a part of what was held.
    amount = outcome.detail.get("amount_received") or attempt.request["amount"]
    paid = format_money(amount, attempt.request["currency"])
    what = attempt.request.get("description", "your order")
    text = f"Thank you.\n\nWe charged {paid} for {what}.\n\nReference: {outcome.ref}\n"
    letter = EmailRequest(to=to, subject=f"Receipt for {what}: {paid}"[:200], text=text)
    request = {**letter.model_dump(mode="json", exclude_none=True), "sender": receipt_sender()}
    return [
        Order(
            id=str(uuid7()),
            tenant=attempt.tenant,
            kind="email",
            dedupe_key=f"{attempt.id}:receipt",
            fingerprint=fingerprint("email", letter.model_dump(mode="json", exclude_defaults=True)),
            request=request,
            lane="email",
            policy=letter.policy,
            caused_by=attempt.id,
            context=attempt.context,
        )
    ]


class Charge(EffectTask[ChargeArguments]):
    """Charge a saved payment method once: `charge.apply_async(kwargs={…}, dedupe_key=…)`."""

    name = "charge"
    model = ChargeRequest
    kind = Kind("charge", provider=lambda: _provider(os.getpid()), follow_up=receipt)

    def money(self, request: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """The amount and currency that the database checks once more."""
        return request["amount"], request["currency"]

    def policy(self, request: Mapping[str, Any]) -> Policy:  # noqa: ARG002
        """Money is never sent twice on a guess."""
        return Policy.AT_MOST_ONCE

    def freeze_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is not asked for is not written: charges of before there was a choice look the same, to the byte."""
        return {name: value for name, value in request.items() if (name, value) != ("capture_method", "automatic")}


charge: Charge = app.register_task(Charge())
