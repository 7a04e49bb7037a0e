"""The wires to the provider: what a call may suffer between the product's own code and the books on the other side.

Stands where `StripeApi`, the wire below Resend and an SMTP session stand, and says what they say: sent, maybe sent,
answered. A call opens its connection, asks the hold, and only then sends; a pause may fall before each.
"""

# ruff: noqa: ARG002 - stands for calls, and does not read each of their arguments
from __future__ import annotations

import json
import smtplib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from service.providers.http1 import Answer as HttpAnswer
from service.providers.http1 import Headers
from service.providers.mail.smtp_session import Phase
from service.providers.stripe.api import Call
from service.providers.stripe.reply import Reply, Sent, Step
from service.providers.wire import NoAnswer, NotSent
from tests.simulation import nemesis as n
from tests.simulation.books import Answer

if TYPE_CHECKING:
    from tests.simulation.world import World

IDLE_SECONDS = 3000.0  # an idle connection is cut, and a request lands, within an hour or never
_FRONT: dict[str, tuple[int, dict[str, Any] | None]] = {
    n.F2: (429, {"type": "rate_limit_error", "code": "rate_limit"}),
    n.F3: (409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}),
    n.REFUSED: (400, {"type": "invalid_request_error", "code": "parameter_invalid"}),
}
_SILENT = (n.F1, n.F7, n.F8, n.F9, n.F10, n.LATE)


class Wire:
    """One call's way there and back, the same for every provider."""

    def __init__(self, world: World) -> None:
        self.world, self.hub, self.books, self.nemesis = world, world.hub, world.books, world.nemesis
        self.random = world.random.random

    def call(
        self, seconds: float, before_send: Callable[[], None], land: Callable[[str], Answer], *, read: bool
    ) -> Answer | None:
        """The answer, or None when none came. Raises NotSent, and what the guard raises."""
        hub, world = self.hub, self.world
        fate = self.nemesis.fate()
        late_check = world.off == "connect_first"
        if late_check:
            before_send()
        world.point()
        hub.sleep(0.02 + 0.1 * self.random())
        if fate == n.UNREACHABLE:
            raise NotSent("connect")
        if not late_check:
            before_send()
        left = hub.now
        world.point()
        # The connection stood idle while we were paused, unless it was opened only now.
        if hub.now - left > IDLE_SECONDS and not late_check:
            return None
        if not read and world.sent is not None:
            world.sent()
        return self._travel(seconds, fate, land, read=read)

    def _travel(self, seconds: float, fate: str, land: Callable[[str], Answer], *, read: bool) -> Answer | None:
        hub = self.hub
        if fate in _FRONT:
            hub.sleep(0.1)
            status, error = _FRONT[fate]
            return (status, None, error, False) if not read or fate == n.F2 else (503, None, None, False)
        if fate in _SILENT:
            if fate != n.F1 and not read:
                soon = self.random() * (IDLE_SECONDS if fate == n.LATE else 5.0)
                hub.at(soon, lambda _: land(""))
            hub.sleep(seconds if fate in (n.F8, n.F10, n.LATE) else 0.3)
            return None
        if fate == n.F6:
            if self.random() < 0.5 and not read:
                hub.at(0.1, lambda _: land(""))
            hub.sleep(0.2)
            return 502, None, None, False
        return self._round_trip(land, fate)

    def _round_trip(self, land: Callable[[str], Answer], fate: str) -> Answer:
        """It lands whatever becomes of its sender."""
        hub, seconds = self.hub, 0.05 + 0.3 * self.random()
        if self.world.dies():
            hub.running.process.dead = True  # type: ignore[union-attr]
        answer = land(fate) if hub.skip(seconds) else self._landing(seconds, land, fate)
        self.world.point()
        return answer

    def _landing(self, seconds: float, land: Callable[[str], Answer], fate: str) -> Answer:
        hub, fibre, box = self.hub, self.hub.running, []

        def arrives(_: object) -> None:
            box.append(land(fate))
            hub.resume(fibre)

        hub.at(seconds, arrives)
        hub.wait()
        return box[0]


class StripeSide:
    """Stands for `StripeApi`: the same calls, the same replies."""

    def plug(self, wire: Wire) -> None:
        """From now on the calls go there."""
        self.wire, self.books, self.banks = wire, wire.books, wire.world.banks

    def _reply(
        self, step: Step, call: Call, doubt: bool, land: Callable[[str], Answer], *, read: bool = False
    ) -> Reply:
        try:
            answer = self.wire.call(call.seconds, call.before_send, land, read=read)
        except NotSent as error:
            return Reply(step, Sent.NOT_SENT, doubt, error.reason)
        if answer is None:
            return Reply(step, Sent.MAYBE, doubt, "timeout")
        status, body, error, replayed = answer
        if self.wire.world.off == "own_answers_only":
            doubt = False
        return Reply(step, Sent.ANSWERED, doubt, "", status, body, error, replayed)

    def _keyed(self, step: Step, subject: str, key: str, call: Call, doubt: bool, work: Callable[[], Answer]) -> Reply:
        return self._reply(step, call, doubt, lambda fate: self.books.once(key, subject, fate, work))

    def create(self, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        return self._keyed(
            Step.CREATE, f"create {params['amount']}", key, call, in_doubt, lambda: self.books.create(dict(params), key)
        )

    def confirm(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        bank = self.banks[key.partition(":")[0].rstrip("'")]
        return self._keyed(
            Step.CONFIRM, f"confirm {intent}", key, call, in_doubt, lambda: self.books.confirm(intent, bank)
        )

    def capture(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        return self._keyed(
            Step.CAPTURE, f"capture {intent}", key, call, in_doubt, lambda: self.books.capture(intent, dict(params))
        )

    def cancel(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        effect = key.partition(":")[0]
        return self._keyed(
            Step.CANCEL, f"cancel {intent}", key, call, in_doubt, lambda: self.books.cancel(intent, effect)
        )

    def refund(self, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        bank = self.banks[key.partition(":")[0].rstrip("'")]
        subject = f"refund {params['payment_intent']} {params['amount']}"
        return self._keyed(Step.REFUND, subject, key, call, in_doubt, lambda: self.books.refund(dict(params), bank))

    def retrieve(self, intent: str, call: Call, *, in_doubt: bool = False) -> Reply:
        def land(fate: str) -> Answer:
            return _read(self.books.intents.get(intent), fate)

        return self._reply(Step.RETRIEVE, call, in_doubt, land, read=True)

    def retrieve_refund(self, refund: str, call: Call) -> Reply:
        return self._reply(
            Step.RETRIEVE, call, False, lambda fate: _read(self.books.refunds.get(refund), fate), read=True
        )

    def read(self, path: str, params: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """One page with all that was made since. Stripe lists the newest first; nothing may hang on that, so here it is
        the oldest (seed 11653989: a recovery took the first of two PaymentIntents, and not the one that had moved money).
        """
        things = self.books.refunds if path == "/v1/refunds" else self.books.intents
        since = params["created"]["gte"]
        return {"data": [dict(thing) for thing in things.values() if thing["created"] >= since], "has_more": False}

    def look_up(self, path: str, params: Mapping[str, Any], call: Call) -> Reply:
        """One page with all there is: of lists at once, of a search when its index has caught up (Stripe: Search)."""

        def land(fate: str) -> Answer:
            found = self._list(path, params)
            return _read({"object": "list", "data": found, "has_more": False}, fate)

        return self._reply(Step.LOOK_UP, call, False, land, read=True)

    def _list(self, path: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        books, hits = self.books, self.wire.nemesis.hits
        hits["look-up"] += 1
        if path == "/v1/refunds":
            return [dict(r) for r in books.refunds.values() if r["payment_intent"] == params["payment_intent"]]
        now, lagging = self.wire.hub.now, self.wire.nemesis.fires(n.LOOK_UP_LAGS)
        if path == "/v1/events":
            return [
                {"request": {"idempotency_key": key}, "data": {"object": dict(books.intents[ref])}}
                for key, ref in books.made_by.items()
                if not lagging or books.intents[ref]["visible_at"] <= now
            ]
        intents = books.intents.values()
        if path == "/v1/payment_intents":
            return [dict(i) for i in intents if i["customer"] == params["customer"]]
        return [dict(i) for i in intents if i["visible_at"] <= now]


def _read(thing: dict[str, Any] | None, fate: str) -> Answer:
    if fate in (n.F4, n.F5):
        return 500, None, {"type": "api_error"}, False
    if thing is None:
        return 404, None, {"type": "invalid_request_error", "code": "resource_missing"}, False
    return 200, dict(thing), None, False


class ResendSide:
    """Stands for the wire below Resend."""

    wire: Wire

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, seconds: float, before_send: Any
    ) -> HttpAnswer:
        """Raises NotSent, NoAnswer, and what the guard raises."""
        books, key = self.wire.books, headers["Idempotency-Key"]
        effect = key.partition(":")[0]
        work = lambda: books.letter(effect)  # noqa: E731 - one expression, handed on
        answer = self.wire.call(
            seconds, before_send, lambda fate: books.once(key, body.decode(), fate, work), read=False
        )
        if answer is None:
            raise NoAnswer("timeout")
        status, found, error, _ = answer
        if error is not None:
            names = {429: "rate_limit_exceeded", 409: "concurrent_idempotent_requests", 400: "validation_error"}
            found = {"name": names.get(status, "internal_server_error")}
            if error.get("type") == "idempotency_error" and status == 400:
                found = {"name": "invalid_idempotent_request"}
        return HttpAnswer(status, Headers(), json.dumps(found or {}).encode(), reusable=True)


class SmtpSide:
    """Stands for `smtp_session.Session`: the same phases in the same order."""

    wire: Wire

    def __init__(self, deadline: Any, *, tls: Any) -> None:
        self.phase = Phase.CONNECT

    def connect(self, host: str, port: int) -> tuple[int, bytes]:
        wire = SmtpSide.wire
        self.fate = wire.nemesis.fate()
        wire.world.point()
        wire.hub.sleep(0.05)
        if self.fate == n.UNREACHABLE:
            raise OSError("refused")
        return 220, b""

    def ehlo_or_helo_if_needed(self) -> None:
        """Nothing is said."""

    def mail(self, sender: str) -> tuple[int, bytes]:
        self.host = sender
        if self.fate == n.F10:
            raise TimeoutError
        return 250, b""

    def rcpt(self, to: str) -> tuple[int, bytes]:
        self.effect = to.partition("@")[0]
        return (450, b"") if self.fate == n.F2 else (250, b"")

    def transfer(self, message: bytes, before_dot: Callable[[], None]) -> tuple[int, bytes]:
        wire, fate = SmtpSide.wire, self.fate
        self.phase = Phase.DATA
        if fate == n.F9:
            raise smtplib.SMTPServerDisconnected("closed")
        before_dot()
        self.phase = Phase.DOT
        left = wire.hub.now
        wire.world.point()
        if wire.hub.now - left > IDLE_SECONDS or fate in (n.F1, n.F5):
            raise smtplib.SMTPServerDisconnected("closed")
        if fate in (n.F7, n.F8, n.LATE, n.F6):
            wire.hub.at(0.1, lambda _: wire.books.letter(self.effect))
            wire.hub.sleep(0.3 if fate == n.F7 else 60.0)
            raise smtplib.SMTPServerDisconnected("closed")
        code = {n.F3: 451, n.F4: 451, n.REFUSED: 550}.get(fate, 250)
        answer = wire._round_trip(
            lambda _: wire.books.letter(self.effect) if code == 250 else (code, None, None, False), ""
        )
        self.phase = Phase.REPLIED
        return (250 if answer[0] == 200 else code), b""

    def leave(self) -> None:
        """The courtesy is not part of the story."""
