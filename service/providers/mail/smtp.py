"""E-mail by SMTP: blind, so the caller's policy decides what an unknown outcome means.

SMTP cannot be exactly-once (RFC 1047): between the final dot and its reply both sides may own the message. A marker
is committed right before the dot. Without it nothing was accepted; with it and no reply, `at_most_once` stays
unknown and `at_least_once` sends the identical bytes again, says so, and not more than a few times.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.core.effect import Attempt, Guarantee, HorizonPassed, Lease, LeaseLost, Policy
from service.core.outcome import Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.deadline import Deadline
from service.providers.mail.message import Unsendable, message_id, read_mail, render
from service.providers.mail.smtp_session import Phase, Session

ACCESS_SECONDS = 60.0  # a wrong password needs a person; a minute keeps the noise down
SENDS_MAX = 3  # the first and two more: a server that never answers the dot must not fill a mailbox


@dataclass(frozen=True, slots=True)
class Server:
    """Where to submit mail. `tls` is `none`, `starttls` or `implicit`."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: str = "none"
    context: ssl.SSLContext | None = None


class SmtpMail:
    """The blind provider of kind `email`."""

    name = "smtp"
    guarantee = Guarantee.BLIND

    def __init__(self, server: Server, *, sender: str, deadline_seconds: float) -> None:
        self._server = server
        self._sender = sender
        self._deadline_seconds = deadline_seconds

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Submit the message once. Raises LeaseLost, the final dot unsent."""
        unanswered = int(attempt.progress.get("unanswered", 0))
        spent = before_sending(attempt.policy, unanswered)
        if spent is not None:
            return spent
        try:
            mail = read_mail(attempt.request, self._sender)
        except Unsendable as error:
            return Failed("invalid_message", str(error))
        letter = _Letter(mail.sender, mail.to, message_id(attempt.id, mail.sender), render(attempt.id, mail))
        deadline = Deadline(min(self._deadline_seconds, lease.seconds_left()))
        return _Dialogue(self._server, lease, deadline, unanswered).run(letter)

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:  # noqa: ARG002 - nobody to ask
        """An SMTP server cannot be asked what it has accepted."""
        return Unknown("cannot_be_asked")


@dataclass(frozen=True, slots=True)
class _Letter:
    sender: str
    to: str
    ref: str
    message: bytes


class _Dialogue:
    """One submission of one message. `unanswered` counts the dots before it whose reply nobody read."""

    def __init__(self, server: Server, lease: Lease, deadline: Deadline, unanswered: int) -> None:
        self._server = server
        self._lease = lease
        self._deadline = deadline
        self._unanswered = unanswered

    def run(self, letter: _Letter) -> Outcome:
        context = None if self._server.tls == "none" else self._server.context or ssl.create_default_context()
        session = Session(self._deadline, tls=context if self._server.tls == "implicit" else None)
        try:
            self._greet(session, context)
            return self._submit(session, letter)
        except (LeaseLost, HorizonPassed):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the phase says what it means
            return broken(session.phase, error, unanswered=self._unanswered)
        finally:
            session.leave()

    def _submit(self, session: Session, letter: _Letter) -> Outcome:
        self._lease.guard()
        session.phase = Phase.ENVELOPE
        code, text = session.mail(letter.sender)
        if 200 <= code < 300:
            code, text = session.rcpt(letter.to)
        if not 200 <= code < 300:
            return refused(session.phase, code, text, unanswered=self._unanswered)
        code, text = session.transfer(letter.message, self._before_dot)
        if session.phase is Phase.REPLIED and 200 <= code < 300:
            return accepted(letter.ref, code, unanswered=self._unanswered)
        if session.phase is Phase.REPLIED and 400 <= code < 600:
            # An own answer: this dot is settled, the next attempt owes it no doubt.
            self._lease.record({"phase": "refused", "unanswered": self._unanswered})
        return refused(session.phase, code, text, unanswered=self._unanswered)

    def _before_dot(self) -> None:
        """From this commit on a dead worker leaves `unknown` behind (W7); until the dot nothing was accepted."""
        self._lease.record({"phase": "committing", "unanswered": self._unanswered + 1})
        self._lease.guard()
        # An impatient client doubles mail (RFC 5321 §4.5.3.2.6): this wait gets all that the lease has left.
        self._deadline.reset(self._lease.seconds_left())

    def _greet(self, session: Session, context: ssl.SSLContext | None) -> None:
        code, text = session.connect(self._server.host, self._server.port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, text)
        session.phase = Phase.GREETING
        session.ehlo_or_helo_if_needed()
        if self._server.tls == "starttls":
            session.starttls(context=context)
            session.ehlo_or_helo_if_needed()
        if self._server.user is not None:
            session.login(self._server.user, self._server.password or "")


def refused(phase: Phase, code: int, text: bytes, *, unanswered: int) -> Outcome:
    """What a reply that is not 2xx proves: 4xx comes again, 5xx is final unless an earlier send may be accepted."""
    evidence = _evidence(phase, code, unanswered)
    if 400 <= code < 500:
        return Deferred(f"smtp_{code}", evidence=evidence)
    if 500 <= code < 600 and unanswered:
        return Unknown("blind_unknown", evidence=evidence)
    if 500 <= code < 600:
        return Failed(f"smtp_{code}", text.decode("ascii", "replace")[:200], {"smtp_code": code}, evidence)
    return Unknown("not_smtp", evidence) if phase is Phase.REPLIED else Deferred("not_smtp", evidence=evidence)


def broken(phase: Phase, error: Exception, *, unanswered: int) -> Outcome:
    """What a dialogue that broke off proves: nothing was accepted before the dot, and who knows after it."""
    evidence = _evidence(phase, getattr(error, "smtp_code", None), unanswered)
    if phase in (Phase.DOT, Phase.REPLIED):
        return Unknown("no_answer", evidence)
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Deferred("access_refused", ACCESS_SECONDS, evidence)
    return Deferred(f"not_sent_{phase.value}", evidence=evidence)


def accepted(ref: str, code: int, *, unanswered: int) -> Succeeded:
    """The reply that takes responsibility; of a copy before it nobody knows whether it was accepted as well."""
    duplicate = {"possible_duplicate": True} if unanswered else {}
    return Succeeded(ref, {"message_id": ref, **duplicate}, _evidence(Phase.REPLIED, code, unanswered))


def before_sending(policy: Policy, unanswered: int) -> Unknown | None:
    """Whether the copies that the policy allows have all been sent."""
    if unanswered and (policy is Policy.AT_MOST_ONCE or unanswered >= SENDS_MAX):
        return Unknown("blind_unknown", evidence={"phase": Phase.DOT.value, "unanswered": unanswered})
    return None


def _evidence(phase: Phase, code: int | None, unanswered: int) -> Mapping[str, Any]:
    facts = {"phase": phase.value, "unanswered": unanswered}
    return facts if code is None else {**facts, "status": code}
