"""An SMTP dialogue that knows where it stands: before the final dot nothing was accepted, after it who knows.

The server takes responsibility when it answers the final dot (RFC 5321 §4.1.1.4); if the connection ends before,
it must discard the message. `smtplib` raises one exception for both sides of that line, so the phase is kept here.
Every wait ends by the deadline, and a dripping server cannot stretch it.
"""

from __future__ import annotations

import io
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

from service.providers.deadline import Deadline, DeadlineReader, close, connect, send_all

QUIT_SECONDS = 1.0  # a courtesy after the message is settled; nothing depends on it

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LEADING_DOT = re.compile(rb"(?m)^\.")


class Phase(StrEnum):
    """The last thing this dialogue set out to do."""

    CONNECT = "connect"
    GREETING = "greeting"
    ENVELOPE = "envelope"
    DATA = "data"
    DOT = "dot"
    REPLIED = "replied"


class Session(smtplib.SMTP):
    """One connection, one message."""

    def __init__(self, deadline: Deadline, *, tls: ssl.SSLContext | None) -> None:
        name = socket.gethostname()
        # Asking DNS for our own name could hang; an address literal is as good (RFC 5321 §4.1.4).
        super().__init__(local_hostname=name if "." in name else "[127.0.0.1]")
        self.phase = Phase.CONNECT
        self._deadline = deadline
        self._tls = tls

    def _get_socket(self, host: str, port: int, timeout: float | None) -> socket.socket:
        self._host = host  # what STARTTLS checks the certificate against
        del timeout  # the deadline holds for the dialogue, not for each wait
        sock = connect(host, port, self._deadline)
        if self._tls is None:
            return sock
        try:
            sock.settimeout(self._deadline.left())
            return self._tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            close(sock)
            raise

    def getreply(self) -> tuple[int, bytes]:
        """The next reply, by the deadline."""
        if self.file is None:
            if self.sock is None:
                raise smtplib.SMTPServerDisconnected("not connected")
            self.file = io.BufferedReader(DeadlineReader(self.sock, self._deadline))
        return super().getreply()

    def send(self, s: Any) -> None:
        """Send, by the deadline."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        send_all(self.sock, s.encode("ascii") if isinstance(s, str) else bytes(s), self._deadline)

    def transfer(self, message: bytes, before_dot: Callable[[], None]) -> tuple[int, bytes]:
        """DATA, the message, `before_dot()`, the dot, and the reply to it. A refused DATA is returned as it is."""
        self.phase = Phase.DATA
        self.putcmd("data")
        code, text = self.getreply()
        if code != 354:
            return code, text
        self.send(stuff_dots(message))
        before_dot()
        self.phase = Phase.DOT
        self.send(b".\r\n")
        reply = self.getreply()
        self.phase = Phase.REPLIED
        return reply

    def leave(self) -> None:
        """Say QUIT if it costs nothing, then close."""
        if self.phase is Phase.REPLIED:
            self._deadline.reset(QUIT_SECONDS)
            with suppress(OSError, smtplib.SMTPException):
                self.docmd("quit")
        self.close()


def stuff_dots(message: bytes) -> bytes:
    """CRLF line ends, leading dots doubled, a line end at the end (RFC 5321 §4.5.2)."""
    body = _LEADING_DOT.sub(b"..", _LINE_END.sub(b"\r\n", message))
    return body if body.endswith(b"\r\n") else body + b"\r\n"
