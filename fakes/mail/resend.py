"""A Resend-shaped HTTP API for e-mail: `POST /emails` with `Idempotency-Key`, `GET /emails/{id}`.

Resend docs, "Idempotency Keys": 24 hours, up to 256 characters; the same key with the same payload returns the first
id and sends nothing, with another payload it is refused, and while the first is in flight it is told to wait.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from fakes.house.dialect import Arrival, Call, Refusal, Refused, Route
from fakes.house.idempotency import Answer, KeyRules
from fakes.mail import mailbox

KEY_LENGTH_MAX = 256
RECIPIENTS_MAX = 50
_ADDRESS = re.compile(r"(?:[^<>@]*<)?[^<>@\s]+@[^<>@\s]+>?")
_FIELDS = frozenset(
    ("from", "to", "subject", "html", "text", "cc", "bcc", "reply_to", "headers", "tags", "attachments", "scheduled_at")
)


def _error(status: int, name: str, message: str) -> Answer:
    return Answer(status, {"statusCode": status, "name": name, "message": message})


def _refuse(name: str, message: str) -> Refused:
    return Refused(_error(422, name, message))


def _parse_email(arrival: Arrival) -> Mapping[str, Any]:
    """The payload, checked as far as Resend checks it before it takes the key."""
    try:
        email = json.loads(arrival.body)
    except ValueError as bad:
        raise _refuse("validation_error", "The request body is not valid JSON.") from bad
    if not isinstance(email, dict):
        raise _refuse("validation_error", "The request body must be an object.")
    for name in ("from", "to", "subject"):
        if not email.get(name):
            raise _refuse("missing_required_field", f"Missing `{name}` field.")
    if unknown := sorted(set(email) - _FIELDS):
        raise _refuse("validation_error", f"Unknown field `{unknown[0]}`.")
    if not (email.get("html") or email.get("text")):
        raise _refuse("missing_required_field", "Missing `html` or `text` field.")
    for address in [email["from"], *_recipients(email)]:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise _refuse("validation_error", "Invalid `to` or `from` field: use `email@example.com` or `Name <…>`.")
    if len(_recipients(email)) > RECIPIENTS_MAX:
        raise _refuse("validation_error", f"The `to` field holds at most {RECIPIENTS_MAX} addresses.")
    return email


def _recipients(email: Mapping[str, Any]) -> list[Any]:
    return [
        address
        for field in ("to", "cc", "bcc")
        for address in ([email[field]] if isinstance(email.get(field), str) else email.get(field) or [])
    ]


def _send(call: Call) -> Answer:
    """Accept the message for each recipient."""
    email_id = str(uuid.uuid4())
    headers = {**(call.params.get("headers") or {}), "Subject": call.params["subject"]}
    raw = json.dumps(call.params, sort_keys=True).encode()
    for recipient in _recipients(call.params):
        copy = mailbox.Copy(
            email_id,
            "resend",
            recipient,
            call.params["from"],
            headers,
            raw,
            call.arrival.at,
            call.arrival.key,
        )
        mailbox.accept(call.connection, copy)
    return Answer(200, {"id": email_id})


def _retrieve(call: Call) -> Answer:
    row = call.connection.execute("SELECT * FROM mailbox WHERE id = ? LIMIT 1", (call.path_id,)).fetchone()
    if row is None:
        raise Refused(_error(404, "not_found", "Email not found"))
    email = json.loads(row["raw"]) if row["via"] == "resend" else {"subject": row["subject"], "to": [row["recipient"]]}
    return Answer(200, {"object": "email", "id": row["id"], "last_event": "delivered", "from": row["sender"], **email})


def _no_parameters(_arrival: Arrival) -> Mapping[str, Any]:
    return {}


ROUTES = (
    Route("emails", "POST", re.compile("/emails"), _parse_email, _send),
    Route("retrieve", "GET", re.compile(r"/emails/(?P<id>[\w-]+)"), _no_parameters, _retrieve),
)


class ResendDialect:
    """Resend's words for what `fakes.house.pipeline` decides."""

    rules = KeyRules(length_max=KEY_LENGTH_MAX)
    routes = ROUTES

    def account(self, arrival: Arrival) -> str | None:
        """Any bearer key opens the door, and all of them belong to one team."""
        scheme, _, token = arrival.headers.get("authorization", "").partition(" ")
        return "team" if scheme.lower() == "bearer" and token else None

    def refusal(self, why: Refusal, arrival: Arrival, code: str | None = None) -> Answer:
        """The refusals in front of the endpoint, and its 500."""
        match why:
            case "unauthorized":
                return _error(401, "missing_api_key", "Missing API key in the authorization header.")
            case "rate_limited":
                name = code or "rate_limit_exceeded"
                return _error(429, name, "Too many requests. Please limit the number of requests per second.")
            case "unknown_route":
                return _error(404, "not_found", f"The requested endpoint does not exist: {arrival.path}")
            case "key_too_long":
                message = f"The key must be between 1-{self.rules.length_max} chars."
                return _error(400, "invalid_idempotency_key", message)
            case "key_in_use":
                message = "Same idempotency key used while original request is still in progress."
                return _error(409, "concurrent_idempotent_requests", message)
            case "server_error":
                return _error(500, "internal_server_error", "An unexpected error occurred.")

    def mismatch(self, arrival: Arrival, first_path: str) -> Answer:  # noqa: ARG002 - Resend names neither
        """409, where Stripe says 400."""
        message = "Same idempotency key used with a different request payload."
        return _error(409, "invalid_idempotent_request", message)

    def headers(self, arrival: Arrival, answer: Answer, original: str | None) -> dict[str, str]:  # noqa: ARG002 - the same
        """Resend marks nothing: a replay looks like the first answer."""
        return {"X-Request-Id": arrival.request_id}
