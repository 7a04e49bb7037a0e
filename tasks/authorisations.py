"""`capture` and `cancel`: what becomes of a charge that holds the customer's money (`capture_method: manual`).

Each is an effect of its own; the charge itself settles when the provider has done it: succeeded by a capture, failed
as `canceled` by a cancellation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from service import settings
from service.core.effect import Policy, Ready
from service.engine.kind import Kind
from service.providers.build import cancel_provider, capture_provider
from service.providers.ports import Provider
from tasks.app import app
from tasks.arguments import CancelArguments, CaptureArguments
from tasks.effect_task import EffectTask, R
from tasks.requests import ChargeId, MoneyRequest, Request


class CaptureRequest(MoneyRequest):
    """What `capture.apply_async(kwargs=…)` takes. A charge is captured once; what is not taken is released."""

    charge: ChargeId
    """The id of the charge effect; its currency, and no more than its amount."""


class CancelRequest(Request):
    """What `cancel.apply_async(kwargs=…)` takes."""

    charge: ChargeId
    """The id of the charge effect."""
    reason: Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"] | None = None
    """Stripe's words (API reference: Cancel a PaymentIntent)."""


@cache
def _provider(pid: int, build: Any) -> Provider:  # noqa: ARG001 - the pid is a key: sockets do not survive a fork
    made: Provider = build(settings.load())
    return made


class _OnHold(EffectTask[R]):
    """An effect upon a charge whose money is held."""

    abstract = True
    lane = "charge"  # the same provider: the workers that serve charges serve it

    def policy(self, request: Mapping[str, Any]) -> Policy:  # noqa: ARG002
        """Money is never moved twice on a guess."""
        return Policy.AT_MOST_ONCE

    def concerns(self, request: Mapping[str, Any]) -> tuple[str | None, Ready | None]:
        """The charge, once its money is held, or once it is final and there is nothing left to do."""
        return request["charge"], Ready.AUTHORISED


class Capture(_OnHold[CaptureArguments]):
    """Take the money that an authorised charge holds: `capture.apply_async(kwargs={…}, dedupe_key=…)`."""

    name = "capture"
    model = CaptureRequest
    kind = Kind("capture", provider=lambda: _provider(os.getpid(), capture_provider))

    def money(self, request: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """What is taken."""
        return request["amount"], request["currency"]


class Cancel(_OnHold[CancelArguments]):
    """Release what an authorised charge holds: `cancel.apply_async(kwargs={…}, dedupe_key=…)`."""

    name = "cancel"
    model = CancelRequest
    kind = Kind("cancel", provider=lambda: _provider(os.getpid(), cancel_provider))


capture: Capture = app.register_task(Capture())
cancel: Cancel = app.register_task(Cancel())
