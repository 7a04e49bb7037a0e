"""`POST /v1/webhooks/stripe`: prove that it is Stripe, keep the event's ids, answer; everything else happens later.

The signature is checked over the raw bytes before anything is parsed. 2xx means that the event is committed; until
then Stripe tells it again. An event that was here before is answered like a new one.
"""

from __future__ import annotations

import time
from functools import partial

import structlog
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from pydantic import BaseModel

from service import settings
from service.api import body, openapi
from service.api.problems import Problem
from service.core.event import Event
from service.engine import inbox
from service.providers.stripe.events import NotAnEvent, parse
from service.providers.stripe.signature import BadSignature, verify
from tasks.effect_task import actor

HEADER = "Stripe-Signature"
_SECRET = "COUNTERFOIL_STRIPE_WEBHOOK_SECRET"  # noqa: S105 - the setting's name

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/webhooks")


_DOCUMENTED = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "schema": openapi.TEXT,
            "description": "`t=…,v1=…`, over the raw body (Stripe: Verify webhook signatures manually)",
        }
    ],
    "requestBody": {
        "required": True,
        "description": "the event, as Stripe sends it",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
}


class Taken(BaseModel):
    """The event is committed; `new` is False when it was told before."""

    id: str
    new: bool


@router.post(
    "/stripe",
    operation_id="stripe_webhook",
    summary="Hear from Stripe that something has changed",
    tags=["webhooks"],
    responses={200: {"headers": openapi.ANSWER_HEADERS}, **openapi.problems(408, 413)},
    openapi_extra=_DOCUMENTED,
)
async def stripe(request: Request) -> Taken:
    """Keep one event. Signed by Stripe (`Stripe-Signature`), at most 512 KiB."""
    secrets = settings.load().stripe_webhook_secrets
    if not secrets:
        log.warning("webhook_refused", reason="no secret is set")
        raise Problem("webhooks_not_set_up", f"{_SECRET} is not set", field=_SECRET)
    raw = await body.read(request)
    try:
        verify(request.headers.get(HEADER), raw, secrets, now=time.time())
    except BadSignature as error:
        raise _refused(str(error), HEADER) from None
    try:
        event = parse(raw)
    except NotAnEvent as error:
        raise _refused(str(error), "body") from None
    _check_mode(event)
    received = await run_sync(partial(inbox.receive, event, actor=actor()))
    log.info("webhook", event_id=event.id, type=event.type, new=received.new, nudged=len(received.nudged))
    return Taken(id=event.id, new=received.new)


def _check_mode(event: Event) -> None:
    """A test event must not touch live effects, nor the other way round. Without a key the workers' own check does."""
    key = settings.load().stripe_api_key
    if key is None:
        return
    live = key.get_secret_value().startswith(("sk_live_", "rk_live_"))
    if event.livemode is not live:
        modes = {True: "live", False: "test"}
        raise _refused(f"the event is of {modes[event.livemode]} mode, the API key of {modes[live]} mode", "livemode")


def _refused(reason: str, field: str) -> Problem:
    log.warning("webhook_refused", reason=reason)
    return Problem("webhook_refused", reason, field=field)
