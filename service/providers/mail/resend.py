"""E-mail by Resend's HTTP API: keyed, so an unknown outcome is settled by the same key (Resend: Idempotency Keys).

Past the horizon the key may be forgotten and the effect is as good as blind: the caller's policy decides, as with
SMTP. The payload is a pure function of the frozen request; another payload under our key would be a contradiction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from service.core.effect import Attempt, Guarantee, HorizonPassed, Lease
from service.core.keys import step_key
from service.core.outcome import Contradiction, Deferred, Failed, Outcome, Succeeded, Unknown
from service.providers.http1 import Answer
from service.providers.mail.message import Mail, Unsendable, read_mail
from service.providers.wire import NoAnswer, NotSent, Wire

# Resend keeps keys for 24 hours (Resend: Idempotency Keys); four of them are margin.
HORIZON_SECONDS = 20 * 3600.0
ACCESS_SECONDS = 60.0  # a refused API key needs a person; a minute keeps the noise down
QUOTA_SECONDS = 3600.0  # quotas are counted by the day or month; an hour finds the reset soon enough
IN_PROGRESS_SECONDS = 2.0  # the first request with this key is still at work


class ResendMail:
    """The keyed provider of kind `email`."""

    name = "resend"
    guarantee = Guarantee.KEYED

    def __init__(self, base: str, api_key: str, *, sender: str, deadline_seconds: float) -> None:
        self._wire = Wire(base)
        self._api_key = api_key
        self._sender = sender
        self._deadline_seconds = deadline_seconds

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Post the message once. Raises LeaseLost, having sent nothing."""
        try:
            mail = read_mail(attempt.request, self._sender)
        except Unsendable as error:
            return Failed("invalid_message", str(error))
        try:
            return self._post(attempt, lease, mail, lambda: lease.guard(horizon_seconds=HORIZON_SECONDS))
        except HorizonPassed:
            return Unknown("key_expired")  # nothing may be sent any more; a person looks at the mailbox

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:  # noqa: ARG002 - nobody to ask
        """Resend finds a letter by its own id only, which stood in the lost answer (Resend: Retrieve Email)."""
        return Unknown("cannot_be_asked")

    def _post(self, attempt: Attempt, lease: Lease, mail: Mail, before_send: Callable[[], None]) -> Outcome:
        headers = {
            "Authorization": f"Bearer {self._api_key}",
            "Content-Type": "application/json",
            "User-Agent": "counterfoil",
            "Idempotency-Key": step_key(attempt.id, "send"),
        }
        seconds = min(self._deadline_seconds, lease.seconds_left())
        try:
            answer = self._wire.request(
                "POST", "/emails", headers, payload(mail), seconds=seconds, before_send=before_send
            )
        except NotSent as error:
            return Deferred(f"not_sent_{error.reason}")
        except NoAnswer as error:
            return Unknown(f"no_answer_{error.reason}")
        return classify(answer, in_doubt=attempt.in_doubt)


def payload(mail: Mail) -> bytes:
    """The body, the same bytes for the same request."""
    fields = {"from": mail.from_header, "to": [mail.to], "subject": mail.subject, "text": mail.text}
    return json.dumps(fields if mail.html is None else {**fields, "html": mail.html}).encode()


def classify(answer: Answer, *, in_doubt: bool) -> Outcome:
    """What the answer proves; front answers say nothing about an earlier send (Resend: Errors)."""
    body = _object(answer.body)
    name = str(body.get("name") or "")
    evidence = {"status": answer.status, **({"code": name} if name else {})}
    if 200 <= answer.status < 300:
        ref = body.get("id")
        if not isinstance(ref, str) or not ref:
            return Unknown("unreadable", evidence)
        detail = {"id": ref}
        return Succeeded(ref, detail=detail, evidence=evidence)
    front = _front(answer, name, evidence)
    if front is not None:
        return front
    if answer.status in (400, 403, 422) and name:
        refused = str(body.get("message") or "Resend refused the message")
        return Unknown("refused_in_front", evidence) if in_doubt else Failed(name, refused, {"code": name}, evidence)
    return Unknown(f"status_{answer.status}", evidence)


def _front(answer: Answer, name: str, evidence: Mapping[str, Any]) -> Outcome | None:
    """Answers that settle nothing: this send did nothing, or another holds the key."""
    wait = answer.retry_after()
    if name == "invalid_idempotent_request":
        # Our key with another payload: the request was not frozen, and the first send's fate is open.
        return Contradiction("idempotency_error", evidence)
    if name == "concurrent_idempotent_requests":
        return Deferred("in_progress", max(IN_PROGRESS_SECONDS, wait or 0.0), evidence)
    if name in ("daily_quota_exceeded", "monthly_quota_exceeded"):
        return Deferred("quota_exceeded", wait or QUOTA_SECONDS, evidence)
    if answer.status == 429:
        return Deferred("rate_limited", wait, evidence)
    if answer.status == 401 or name in ("invalid_api_key", "missing_api_key", "restricted_api_key"):
        return Deferred("access_refused", ACCESS_SECONDS, evidence)
    return None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
