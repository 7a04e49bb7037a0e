"""The Stripe fake's own back door: what money moved, how it is set, and what happens without a request.

GET  /_fake/ledger?effect_id=…            every movement of money, and the summary; `rows=none` leaves the rows out
GET|POST /_fake/settings {…}              named settings (`settings`)
POST /_fake/intents/{id}/finish {"as"}    the bank's answer to `processing`, the customer's to `requires_action`:
                                          succeeded, failed or canceled; without `as`, what the test card stands for
POST /_fake/refunds/{id}/finish {"as"}    pending, requires_action, succeeded, failed (with a `reason`) or canceled
POST /_fake/plant {"intents": […]}        ready-made objects in bulk (`plant`)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fakes.house.clock import Clock
from fakes.house.storage import Storage
from fakes.stripe import attempts, holds, ledger, payment_methods, plant, refunds, settings
from fakes.stripe.change import Change
from fakes.stripe.objects import Json

Work = Callable[[Change, Request, dict[str, Any]], object]

ENDS = ("succeeded", "failed", "canceled")


class Impossible(ValueError):
    """What the admin asked for cannot happen to this object; the message says why."""


class UnknownObject(Exception):
    """The admin named an object that is not there."""


def routes(storage: Storage, clock: Clock) -> list[Route]:
    """The endpoints, over one storage and one clock."""

    def endpoint(work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def run(request: Request) -> Response:
            body = await request.json() if await request.body() else {}

            def job(connection: sqlite3.Connection) -> object:
                at = clock.now()
                holds.expire(connection, at)
                return work(Change(connection, at), request, body)

            try:
                return JSONResponse(await storage.write(job))
            except UnknownObject as unknown:
                return JSONResponse({"error": str(unknown)}, 404)
            except ValueError as bad:
                return JSONResponse({"error": str(bad)}, 422)

        return run

    return [
        Route("/_fake/ledger", endpoint(_ledger)),
        Route("/_fake/settings", endpoint(_settings), methods=["GET", "POST"]),
        Route("/_fake/intents/{id}/finish", endpoint(_finish_intent), methods=["POST"]),
        Route("/_fake/refunds/{id}/finish", endpoint(_finish_refund), methods=["POST"]),
        Route("/_fake/plant", endpoint(_plant), methods=["POST"]),
    ]


def _ledger(change: Change, request: Request, _body: dict[str, Any]) -> object:
    told = ledger.oracle(change.connection, request.query_params.get("effect_id"))
    return {"summary": told["summary"]} if request.query_params.get("rows") == "none" else told


def _settings(change: Change, _request: Request, body: dict[str, Any]) -> object:
    return settings.as_json(settings.change(change.connection, body))


def _finish_intent(change: Change, request: Request, body: dict[str, Any]) -> object:
    intent = _known(change, "payment_intent", request)
    end = body.get("as") or _own_end(change, intent)
    if intent["status"] not in ("processing", "requires_action") or end not in ENDS:
        raise Impossible(f"a PaymentIntent that is {intent['status']} cannot be finished as {end}")
    if end == "canceled":
        holds.cancel(change, intent, "automatic")
    elif intent["status"] == "processing":
        attempts.bank_said(change, intent, paid=end == "succeeded")
    else:
        attempts.customer_did(change, intent, authenticated=end == "succeeded")
    return intent


def _own_end(change: Change, intent: Json) -> str:
    """What the test card or account stands for."""
    shown = change.load("payment_method", intent["payment_method"])
    decline = payment_methods.held(change.connection, shown).card.decline if shown else None
    return "failed" if decline else "succeeded"


def _finish_refund(change: Change, request: Request, body: dict[str, Any]) -> object:
    refund = _known(change, "refund", request)
    shown = change.load("payment_method", (change.load("charge", refund["charge"]) or {}).get("payment_method"))
    card = payment_methods.held(change.connection, shown).card if shown else None
    end = body.get("as") or ("failed" if card and card.refund == "fails_later" else "succeeded")
    if refund["status"] not in refunds.FINISHABLE or end not in settings.REFUND_STATUSES or end == refund["status"]:
        raise Impossible(f"a refund that is {refund['status']} cannot become {end}")
    refunds.finish(change, refund, end, body.get("reason", "unknown"))
    return refund


def _plant(change: Change, _request: Request, body: dict[str, Any]) -> object:
    return {"planted": plant.plant(change.connection, body.get("intents", ()), change.now)}


def _known(change: Change, kind: str, request: Request) -> Json:
    found = change.load(kind, request.path_params["id"])
    if found is None:
        raise UnknownObject(f"no such {kind}: {request.path_params['id']}")
    return found
