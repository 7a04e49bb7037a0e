"""An e-mail's bytes are a pure function of the effect: re-sent, they are identical, Message-ID and boundary included.

A receiver that suppresses duplicates can only do so by the Message-ID (RFC 5322 §3.6.4). Nothing random, no clock:
the date is the moment in the effect's id, a UUID version 7.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any

_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")


class Unsendable(Exception):
    """This request can never become a message; the text names the field and never its value."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A checked request: one recipient, one sender, no line break in any header."""

    sender: str
    sender_name: str
    to: str
    subject: str
    text: str
    html: str | None

    @property
    def from_header(self) -> str:
        """The sender as it stands in a header."""
        return str(Address(self.sender_name, addr_spec=self.sender)) if self.sender_name else self.sender


def read_mail(request: Mapping[str, Any], default_sender: str) -> Mail:
    """Check the frozen request. Raises Unsendable."""
    for field in ("to", "subject", "sender"):
        # A line break would start a header of the caller's making (RFC 5322 §2.2).
        if _CONTROL.search(str(request.get(field) or "")):
            raise Unsendable(f"{field} holds a control character")
    name, sender = parseaddr(str(request.get("sender") or default_sender))
    to = str(request.get("to") or "")
    for field, address in (("to", to), ("sender", sender)):
        if not address.isascii() or not _ADDRESS.match(address):
            raise Unsendable(f"{field} is not one plain e-mail address")
    html = request.get("html")
    return Mail(sender, name, to, str(request.get("subject") or ""), str(request.get("text") or ""), html)


def message_id(effect_id: str, sender: str) -> str:
    """One Message-ID for ever (I6)."""
    return f"<{effect_id}@{sender.rpartition('@')[2]}>"


def render(effect_id: str, mail: Mail) -> bytes:
    """The message, with CRLF line ends."""
    message = EmailMessage(policy=SMTP)
    message["From"] = mail.from_header
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Message-ID"] = message_id(effect_id, mail.sender)
    accepted = uuid.UUID(effect_id)
    if accepted.version == 7:
        moment = datetime.fromtimestamp((accepted.int >> 80) // 1000, UTC)
        message["Date"] = format_datetime(moment)
    message["Auto-Submitted"] = "auto-generated"  # vacation answers stay away (RFC 3834)
    message.set_content(mail.text, cte="quoted-printable")
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
        # "=_" can occur in no quoted-printable body, so no content can end its part (RFC 2045 §6.7).
        message.set_boundary("=_" + hashlib.sha256(effect_id.encode()).hexdigest()[:32])
    return message.as_bytes()
