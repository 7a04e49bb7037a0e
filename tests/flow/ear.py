"""An API of ours that hears Stripe: started for one test, registered with the fake, and posted to by hand."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

from tests.flow.doors import Answer
from tests.flow.program import Program
from tests.flow.system import System

SECRET = "whsec_flow"
PATH = "/v1/webhooks/stripe"
_serial = count(1)


def header(body: bytes, *, secret: str = SECRET, at: float | None = None) -> str:
    """Stripe docs, "Verify webhook signatures manually"."""
    stamp = int(time.time() if at is None else at)
    proof = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={proof}"


def event(about: dict[str, Any], type_: str = "payment_intent.succeeded", **changes: Any) -> bytes:
    document = {
        "id": f"evt_by_hand_{next(_serial)}",
        "object": "event",
        "type": type_,
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": about},
    }
    return json.dumps({**document, **changes}).encode()


@dataclass
class Ear:
    system: System
    program: Program
    port: int
    endpoint: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def post(self, body: bytes, signature: str | None = None) -> Answer:
        """One webhook; signed unless `signature` is given (empty: none)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            given = {"Stripe-Signature": header(body) if signature is None else signature}
            connection.request(
                "POST", PATH, body, {"Content-Type": "application/json", **{k: v for k, v in given.items() if v}}
            )
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def turn(self, **knobs: Any) -> None:
        """Turn the knobs of the endpoint that the fake posts to."""
        self.system.stripe.admin("webhooks", {"id": self.endpoint, **knobs})

    def resend(self, type_: str) -> None:
        """Let the fake tell the events of this type (again)."""
        owed = self.system.stripe.admin(f"webhooks/deliveries?endpoint={self.endpoint}")["deliveries"]
        chosen = {delivery["event"] for delivery in owed if delivery["type"] == type_}
        assert chosen, f"no {type_} among {[d['type'] for d in owed]}"
        for one in chosen:
            self.system.stripe.admin("webhooks/resend", {"event": one, "endpoint": self.endpoint})

    def inbox(self) -> list[dict[str, Any]]:
        return self.system.sql("select * from inbox order by received_at")


@contextmanager
def hearing(system: System, *, register: bool = True, **settings: str) -> Iterator[Ear]:
    """The API, listening; the fake tells it what happens unless `register` is false."""
    program = system.start("api", ["service", "api", "--port", "0"], **{"STRIPE_WEBHOOK_SECRET": SECRET, **settings})
    [line] = system.until(lambda: program.lines("listening"), "the API listens")[:1]
    ear = Ear(system, program, urlsplit(line["url"]).port or 0)
    try:
        if register:
            ear.endpoint = str(system.stripe.admin("webhooks", {"url": ear.url, "secret": SECRET})["id"])
        yield ear
    finally:
        system.stripe.admin("webhooks", method="DELETE")
