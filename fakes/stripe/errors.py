"""Stripe's error bodies, word for word where its wire is on record (Stripe docs, "Errors" and "Error codes")."""

from __future__ import annotations

from typing import Any

from fakes.house.idempotency import Answer

_DOCS = "https://docs.stripe.com/error-codes/"


def error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    **more: Any,
) -> Answer:
    """One error answer: keys in alphabetical order, absent rather than null."""
    fields = {
        "code": code,
        "doc_url": _DOCS + code.replace("_", "-") if code else None,
        "message": message,
        "param": param,
        "type": kind,
        **more,
    }
    return Answer(status, {"error": {name: fields[name] for name in sorted(fields) if fields[name] is not None}})


def no_such(what: str, object_id: str, param: str, status: int = 404) -> Answer:
    """404 for an object in the path, 400 for one in a parameter."""
    return error(status, f"No such {what}: '{object_id}'", code="resource_missing", param=param)


def unauthorized(authorization: str | None) -> Answer:
    """401, in front of everything."""
    if not authorization:
        return error(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization header, using"
            " Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    return error(401, "Invalid API Key provided: ****")


def rate_limited(code: str | None) -> Answer:
    """429: too many requests, or with `lock_timeout` an object that somebody else holds."""
    if code == "lock_timeout":
        return error(
            429,
            "This object cannot be accessed right now because another API request or Stripe process is currently"
            " accessing it. If you see this error intermittently, retry the request.",
            code="lock_timeout",
        )
    return error(429, "Request rate limit exceeded. Learn more about rate limits here.", code="rate_limit")


def key_in_use(key: str) -> Answer:
    """409: the first request with this key has not been answered."""
    return error(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably means you submitted"
        f" twice, and the other request is still going through): {key}. Please try again later.",
        code="idempotency_key_in_use",
    )


def key_mismatch(key: str, path: str, first_path: str) -> Answer:
    """The same key with other parameters or on another endpoint: 400, and no code."""
    what = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with."
        if path == first_path
        else f"Keys for idempotent requests can only be used for the same endpoint they were first used for"
        f" ('{path}' vs '{first_path}')."
    )
    advice = f" Try using a key other than '{key}' if you meant to execute a different request."
    return error(400, what + advice, kind="idempotency_error")


def server_error() -> Answer:
    """500: Stripe does not know either; kept under the key like any other answer."""
    return error(500, "An unknown error occurred.", kind="api_error")
