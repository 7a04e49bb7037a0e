"""`refund`: money of a charge goes back once, and never before the charge has succeeded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field

from service import settings
from service.core.effect import Policy, Ready
from service.engine.kind import Kind
from service.providers.build import refund_provider
from service.providers.ports import Provider
from tasks.app import app
from tasks.arguments import RefundArguments
from tasks.effect_task import EffectTask
from tasks.requests import ChargeId, Metadata, MoneyRequest


class RefundRequest(MoneyRequest):
    """What `refund.apply_async(kwargs=…)` takes. Several partial refunds of one charge are several effects."""

    charge: ChargeId
    """The id of the charge effect; its currency, and no more than its amount."""
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None
    """Stripe's words (API reference: Create a refund); `fraudulent` also blocks the card."""
    metadata: Metadata = Field(default_factory=dict)


@cache
def _provider(pid: int) -> Provider:  # noqa: ARG001 - the pid is the key: sockets do not survive a fork
    return refund_provider(settings.load())


class Refund(EffectTask[RefundArguments]):
    """Refund a charge, in whole or in part: `refund.apply_async(kwargs={…}, dedupe_key=…)`."""

    name = "refund"
    model = RefundRequest
    kind = Kind("refund", provider=lambda: _provider(os.getpid()))
    lane = "charge"  # the same provider: the workers that serve charges serve it

    def money(self, request: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """What goes back."""
        return request["amount"], request["currency"]

    def policy(self, request: Mapping[str, Any]) -> Policy:  # noqa: ARG002
        """Money is never sent twice on a guess."""
        return Policy.AT_MOST_ONCE

    def concerns(self, request: Mapping[str, Any]) -> tuple[str | None, Ready | None]:
        """The charge, once it is final: succeeded, or failed, and then this one fails as well."""
        return request["charge"], Ready.SETTLED


refund: Refund = app.register_task(Refund())
