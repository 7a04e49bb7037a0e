"""An SMTP server that can fail in every phase, and keeps what it accepted before it says 250.

Phases, in the order of RFC 5321: banner, ehlo, mail, rcpt, data (before 354), mid_data (after 354, inside the text),
before_accept (final dot read, nothing kept), after_accept (kept, then the 250 is lost: the gap of RFC 1047), quit.
At each of them a fault may close or reset the connection, reject with a code, be slow, hang, hold at a barrier, or
crash. Every phase that was reached is in the request log, with the reply it got: one id for each session, and no
status where the phase has no reply of its own (mid_data, before_accept) or it was never sent.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from fakes.house import doors, request_log, wire
from fakes.house.clock import Clock
from fakes.house.faults import Fault, Plan
from fakes.house.storage import Storage
from fakes.mail.mailbox import Copy, accept, headers_of

REJECT_CODE = 451
_CLOSING = ("close", "close_before", "close_after", "reset")


class _Gone(asyncio.CancelledError):
    """We cut the connection; aiosmtpd takes a cancellation for the end of the session, and stops quietly."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What the SMTP side of the fake needs of its house."""

    storage: Storage
    plan: Plan
    clock: Clock
    numbers: Iterator[int]  # of requests, over all doors and lives
    latency_seconds: float


class Visit:
    """One session: what it is called, which phase it is in, and what goes wrong there."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._id = f"smtp_{secrets.token_hex(7)}"
        self._phase: int | None = None

    async def at(self, phase: str, address: str, server: SMTP) -> str | None:
        """Note the phase and carry out the fault planned for it. Returns the reply to give instead, if any."""
        fault = self._slot.plan.strike(phase, address)
        self._phase = next(self._slot.numbers)
        place = request_log.Place(self._phase, self._id, self._slot.clock.now())
        self._slot.storage.later(request_log.reached(place, phase, address, fault))
        if fault is None:
            return None
        if fault.action in _CLOSING:
            _cut(server, reset=fault.action == "reset")
        if fault.action == "reject":
            return _rejection(fault)
        await fault.before_effect()
        await fault.after_effect()
        return None

    def replied(self, status: str) -> None:
        """Note the reply to the phase that was reached last."""
        if self._phase is not None and status[:3].isdigit():
            self._slot.storage.later(request_log.replied(self._phase, int(status[:3])))
            self._phase = None


def _cut(server: SMTP, *, reset: bool) -> None:
    transport = cast("asyncio.Transport", server.transport)
    if reset:
        wire.linger_no_more(transport)
    transport.abort()
    raise _Gone


def _rejection(fault: Fault) -> str:
    code = int(fault.code or REJECT_CODE)
    kind = f"{code // 100}.0.0"
    return f"{code} {kind} {fault.text or 'Refused by the fault plan'}"


def _let_in(_mechanism: str, _login: bytes | None, _password: bytes | None) -> bool:
    """Any name and password will do, so that a configured login can be tried."""
    return True


class Server(SMTP):
    """One connection. aiosmtpd has no hooks for the banner and the text of DATA, so these two are overridden."""

    def __init__(self, slot: Slot) -> None:
        self._visit = Visit(slot)
        super().__init__(
            Hooks(slot, self._visit),
            hostname="fake.mail.test",
            ident="fake",
            enable_SMTPUTF8=True,
            auth_require_tls=False,  # loopback only
            auth_callback=_let_in,
        )
        self._received = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Note that the client has said something since our last reply."""
        self._received.set()
        super().data_received(data)

    async def _handle_client(self) -> None:
        try:
            reply = await self._visit.at("banner", "", self)
        except _Gone:
            return
        if reply:
            await self.push(reply)
            cast("asyncio.Transport", self.transport).close()
            return
        await super()._handle_client()

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        """The phase before 354: a refusal here is safe, nothing of the text was sent."""
        envelope = cast("Envelope", self.envelope)
        recipients = " ".join(envelope.rcpt_tos)
        if recipients and (reply := await self._visit.at("data", recipients, self)):
            await self.push(reply)
            return
        await super().smtp_DATA(arg)

    async def push(self, status: Any) -> None:
        """Send a reply; after 354 the text is awaited, and may be interrupted."""
        self._received.clear()
        await super().push(status)
        self._visit.replied(status.decode("ascii", "replace") if isinstance(status, bytes) else str(status))
        if str(status).startswith("354"):
            await self._mid_data()

    async def _mid_data(self) -> None:
        """After 354 and a first piece of the text: the server must forget the transaction (RFC 5321, 4.1.1.10)."""
        recipients = " ".join(cast("Envelope", self.envelope).rcpt_tos)
        await self._received.wait()
        await self._visit.at("mid_data", recipients, self)


class Hooks:
    """The hooks that aiosmtpd calls, and the way into the mailbox."""

    def __init__(self, slot: Slot, visit: Visit) -> None:
        self._slot = slot
        self._visit = visit

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Phase ehlo."""
        if reply := await self._visit.at("ehlo", hostname, server):
            return [reply]
        session.host_name = hostname
        return responses

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: Sequence[str]
    ) -> str:
        """Phase mail: the envelope sender."""
        if reply := await self._visit.at("mail", address, server):
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: Sequence[str]
    ) -> str:
        """Phase rcpt: one recipient, who may be refused for good (5xx) or for now (4xx)."""
        if reply := await self._visit.at("rcpt", address, server):
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - the same
        """The final dot was read: before_accept and after_accept stand around the durable write."""
        recipients = " ".join(envelope.rcpt_tos)
        if self._slot.latency_seconds:
            await asyncio.sleep(self._slot.latency_seconds)
        if reply := await self._visit.at("before_accept", recipients, server):
            return reply
        # A write of its own task: once the final dot is read the message is ours, even if the client hangs up now.
        queue_id = await asyncio.shield(asyncio.ensure_future(self._accept(envelope)))
        if reply := await self._visit.at("after_accept", recipients, server):
            return reply
        return f"250 2.0.0 OK queued as {queue_id}"

    async def handle_QUIT(self, server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802 - the same
        """Phase quit: the message is accepted, whatever happens here."""
        return await self._visit.at("quit", "", server) or "221 2.0.0 Bye"

    async def _accept(self, envelope: Envelope) -> str:
        raw = bytes(cast("bytes", envelope.original_content))
        queue_id, headers, now = secrets.token_hex(8), headers_of(raw), self._slot.clock.now()
        sender, recipients = envelope.mail_from or "", list(envelope.rcpt_tos)

        def keep(connection: sqlite3.Connection) -> None:
            for recipient in recipients:
                accept(connection, Copy(queue_id, "smtp", recipient, sender, headers, raw, now))

        await self._slot.storage.write(keep)
        return queue_id


class SmtpDoor:
    """The SMTP port, which can be shut and opened again."""

    def __init__(self, slot: Slot, sock: socket.socket) -> None:
        self._slot = slot
        self._sock = sock
        self._port = doors.port_of(sock)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Answer connections."""
        if self._server is not None:
            self._sock = doors.listen(self._port)
        self._server = await asyncio.get_running_loop().create_server(lambda: Server(self._slot), sock=self._sock)

    def shut(self) -> None:
        """Refuse connections; sessions that are under way go on."""
        if self._server is not None:
            self._server.close()
