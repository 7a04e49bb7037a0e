"""`email`: one letter to one address. With a keyed provider exactly once; over SMTP what its policy says, no more."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from service import settings
from service.core.effect import Policy
from service.engine.kind import Kind
from service.providers.build import email_provider
from service.providers.ports import Provider
from tasks.app import app
from tasks.arguments import EmailArguments
from tasks.effect_task import EffectTask

# One mailbox, nothing else: no display name, no list, no control characters (RFC 5321 §4.1.2, in its common part).
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
BODY_LENGTH_MAX = 256 * 1024  # characters; a letter, not an attachment


def _mailbox(value: str) -> str:
    if not _MAILBOX.match(value) or len(value) > 254:
        raise ValueError("must be one e-mail address like ada@example.com")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one printable line (no line breaks: header injection)")
    return value


Address = Annotated[str, AfterValidator(_mailbox)]
Body = Annotated[str, StringConstraints(min_length=1, max_length=BODY_LENGTH_MAX)]


class EmailRequest(BaseModel):
    """What `email.apply_async(kwargs=…)` takes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    to: Address
    subject: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_one_line)]
    text: Body
    html: Body | None = None
    sender: Address | None = None
    """Default: COUNTERFOIL_EMAIL_SENDER as it is when the effect is accepted."""
    policy: Annotated[Policy, Field(strict=False)] = Policy.AT_LEAST_ONCE
    """After an unknown outcome over SMTP: `at_least_once` re-sends the same bytes (receipts), `at_most_once` parks."""


@cache
def _provider(pid: int) -> Provider:  # noqa: ARG001 - the pid is the key: sockets do not survive a fork
    return email_provider(settings.load())


def receipt_sender() -> str:
    """The sender that is frozen into a letter when it is accepted."""
    return settings.load().email_sender


class Email(EffectTask[EmailArguments]):
    """Send one e-mail: `email.apply_async(kwargs={"to": …, "subject": …, "text": …}, dedupe_key=…)`."""

    name = "email"
    model = EmailRequest
    kind = Kind("email", provider=lambda: _provider(os.getpid()))

    def policy(self, request: Mapping[str, Any]) -> Policy:
        """Chosen by the caller, stored with the effect."""
        return Policy(request["policy"])

    def freeze_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """A re-sent letter has the same bytes, so the sender is fixed now."""
        return {"sender": receipt_sender(), **request}


email: Email = app.register_task(Email())
