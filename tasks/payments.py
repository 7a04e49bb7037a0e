"""`charge`: money moves once. The card is a provider's token, the amount an integer of minor units."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from uuid_utils import uuid7

from service import settings
from service.core.effect import Attempt, Order, Policy
from service.core.keys import fingerprint
from service.core.money import check_money, format_money
from service.core.outcome import Succeeded
from service.engine.kind import Kind
from service.providers.build import charge_provider
from service.providers.ports import Provider
from tasks.app import app
from tasks.effect_task import EffectTask
from tasks.mail import Address, EmailRequest, receipt_sender

METADATA_KEYS_MAX = 40  # Stripe allows 50; ten are left for ours


class ChargeRequest(BaseModel):
    """What `charge.apply_async(kwargs=…)` takes. Limits are Stripe's (API reference, PaymentIntents; Metadata)."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    amount: int
    """Minor units: 4200 is 42.00 eur."""
    currency: str
    """Lowercase ISO-4217."""
    payment_method: Annotated[str, StringConstraints(pattern=r"^(pm|card|src|ba)_[A-Za-z0-9_]{1,250}$")]
    customer: Annotated[str, StringConstraints(pattern=r"^cus_[A-Za-z0-9_]{1,250}$")] | None = None
    receipt_email: Address | None = None
    """Causes one `email` effect when the charge has succeeded; Stripe's own receipts stay off."""
    description: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    statement_descriptor_suffix: Annotated[str, StringConstraints(pattern=r"^[ -~]{1,22}$")] | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    off_session: bool = True

    @model_validator(mode="before")
    @classmethod
    def _money(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "amount" in data and "currency" in data:
            check_money(data["amount"], data["currency"])
        return data

    @field_validator("metadata")
    @classmethod
    def _metadata(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > METADATA_KEYS_MAX:
            raise ValueError(f"metadata has {len(value)} keys; the limit is {METADATA_KEYS_MAX}")
        for name, text in value.items():
            if not 1 <= len(name) <= 40 or len(text) > 500:
                raise ValueError("metadata: names have 1 to 40 characters, values up to 500")
            if name == "effect_id":
                raise ValueError("metadata: effect_id is ours; choose another name")
        return value


@cache
def _provider(pid: int) -> Provider:  # noqa: ARG001 - the pid is the key: sockets do not survive a fork
    return charge_provider(settings.load())


def receipt(attempt: Attempt, outcome: Succeeded) -> list[Order]:
    """The receipt of a succeeded charge, accepted in the settling commit: one e-mail, caused by the charge."""
    to = attempt.request.get("receipt_email")
    if not to:
        return []
    paid = format_money(attempt.request["amount"], attempt.request["currency"])
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


class Charge(EffectTask):
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


charge: Charge = app.register_task(Charge())
