"""A Stripe that stripe-python talks to unchanged: idempotency as documented, and objects that keep to Stripe's rules.

One account, test mode only. `fakes.house.pipeline` fixes the order of checks; this page says how Stripe speaks in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from fakes.house import clock, idempotency, request_log
from fakes.house.idempotency import Answer, KeyRules
from fakes.house.pipeline import Arrival, Refusal
from fakes.stripe import errors as stripe_errors
from fakes.stripe import holds, ledger, objects, payment_methods, search, settings
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.routes import ROUTES

_TABLES = (clock, holds, idempotency, ledger, objects, payment_methods, request_log, search, settings)
SCHEMA = "".join(owner.SCHEMA for owner in _TABLES)


class StripeDialect:
    """Stripe's words for what `fakes.house.pipeline` decides."""

    rules = KeyRules()
    routes = ROUTES

    def account(self, arrival: Arrival) -> str | None:
        """All test keys belong to one account; a connected account has keys of its own."""
        scheme, _, token = arrival.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.startswith(("sk_test_", "rk_test_")):
            return None
        return arrival.headers.get("stripe-account", "own")

    def refusal(self, why: Refusal, arrival: Arrival, code: str | None = None) -> Answer:
        """The refusals in front of the endpoint, and its 500."""
        match why:
            case "unauthorized":
                return stripe_errors.unauthorized(arrival.headers.get("authorization"))
            case "rate_limited":
                return stripe_errors.rate_limited(code)
            case "unknown_route":
                return stripe_errors.error(404, f"Unrecognized request URL ({arrival.method}: {arrival.path}).")
            case "key_too_long":
                return stripe_errors.error(400, f"Idempotency keys are at most {self.rules.length_max} characters.")
            case "key_in_use":
                return stripe_errors.key_in_use(arrival.key or "")
            case "server_error":
                return stripe_errors.server_error()

    def mismatch(self, arrival: Arrival, first_path: str) -> Answer:
        """400 `idempotency_error`."""
        return stripe_errors.key_mismatch(arrival.key or "", arrival.path, first_path)

    def headers(self, arrival: Arrival, answer: Answer, original: str | None) -> dict[str, str]:
        """Stripe docs, "Idempotent requests" and "Advanced error handling"; a replay has a request id of its own."""
        headers = {
            "Request-Id": arrival.request_id,
            "Stripe-Version": arrival.headers.get("stripe-version", stripe_objects.API_VERSION),
        }
        if arrival.key:
            headers |= {"Idempotency-Key": arrival.key, "Original-Request": original or arrival.request_id}
        if original:
            headers["Idempotent-Replayed"] = "true"
        if (decided := _should_retry(answer)) is not None:
            headers["Stripe-Should-Retry"] = decided
        return headers


def _should_retry(answer: Answer) -> str | None:
    """Stripe's own advice: a conflict or a lock passes by itself; a stored answer stays what it is."""
    body = answer.body if isinstance(answer.body, Mapping) else {}
    if answer.status == 409 or body.get("error", {}).get("code") == "lock_timeout":
        return "true"
    return "false" if answer.status in (200, 402, 500) else None
