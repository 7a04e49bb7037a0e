"""The Stripe SDK at arm's length: it owns encoding, version and errors; phases, deadline and retries are ours.

The only module that imports `stripe`. Every call answers with a `Reply`, the bare facts; what they mean is decided in
`stripe_answers`. What the guard raises right before the first byte passes through untouched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

import stripe

from service.core.effect import HorizonPassed, LeaseLost
from service.core.errors import DependencyUnavailable
from service.providers.http1 import Answer
from service.providers.stripe_answers import Reply, Sent, Step
from service.providers.wire import NoAnswer, NotSent, Wire

stripe.enable_telemetry = False  # else the SDK writes an id into the home directory and reports timings
# The SDK logs parameters and error texts of callers; what we log of a call is in the journal.
logging.getLogger("stripe").setLevel(logging.WARNING)


_INTENTS = "/v1/payment_intents"


class Call:
    """One call on its way through the SDK: when it must end, what to ask before its first byte, what came back."""

    __slots__ = ("answer", "before_send", "seconds")

    def __init__(self, seconds: float, before_send: Callable[[], None]) -> None:
        self.seconds = seconds
        self.before_send = before_send
        self.answer: Answer | None = None


# The SDK passes nothing of ours to its HTTP client; a context variable belongs to one thread or greenlet.
_current: ContextVar[Call] = ContextVar("stripe_call")


class WireClient(stripe.HTTPClient):
    """The SDK's HTTP client, on our wire. Its errors are ours, so that the SDK neither wraps nor repeats them."""

    name = "counterfoil"

    def __init__(self, wire: Wire, origin: str) -> None:
        super().__init__()
        self._wire = wire
        self._origin = origin

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        """Send once. Raises NotSent, NoAnswer, and whatever the guard raises."""
        call = _current.get()
        body = post_data.encode() if post_data else b""
        call.answer = answer = self._wire.request(
            method.upper(),
            url.removeprefix(self._origin),
            headers or {},
            body,
            seconds=call.seconds,
            before_send=call.before_send,
        )
        return answer.body.decode("utf-8", "replace"), answer.status, answer.headers

    def close(self) -> None:
        """Nothing to do: idle connections close when they are old or the process ends."""


class StripeApi:
    """Create, confirm and retrieve PaymentIntents. Safe to call from threads, greenlets and forked children."""

    def __init__(self, api_key: str, base: str) -> None:
        self._api_key = api_key
        self._base = base.rstrip("/")
        self._client: tuple[int, stripe.StripeClient] | None = None

    def create(self, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Create a PaymentIntent; unconfirmed, it moves no money."""
        return self._perform(Step.CREATE, call, "post", _INTENTS, _keyed(params, key), in_doubt=in_doubt)

    def confirm(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Confirm it: the one call that moves money. A PaymentIntent succeeds at most once."""
        path = f"{_INTENTS}/{quote(intent, safe='')}/confirm"
        return self._perform(Step.CONFIRM, call, "post", path, _keyed(params, key), in_doubt=in_doubt)

    def retrieve(self, intent: str, call: Call) -> Reply:
        """Ask what became of it; strongly consistent and without effect."""
        return self._perform(Step.RETRIEVE, call, "get", f"{_INTENTS}/{quote(intent, safe='')}", {}, in_doubt=False)

    def read(self, path: str, params: Mapping[str, Any], *, seconds: float) -> Mapping[str, Any]:
        """GET anything, for look-ups and audits; without effect. Raises DependencyUnavailable in words for a person."""
        call = Call(seconds, lambda: None)
        token = _current.set(call)
        try:
            data = self._sdk().raw_request("get", path, **params).data
        except (NotSent, NoAnswer) as error:
            raise DependencyUnavailable(f"Stripe does not answer ({error.reason}): try again later") from None
        except stripe.StripeError as error:
            raise DependencyUnavailable(f"Stripe refused to be read: {error.http_status} {error.code or ''}") from None
        finally:
            _current.reset(token)
        if not isinstance(data, dict):
            raise DependencyUnavailable("Stripe's answer is not an object")
        return data

    def _sdk(self) -> stripe.StripeClient:
        """One client per process: a client used before the fork answers with other requests' data."""
        if self._client is None or self._client[0] != os.getpid():
            client = stripe.StripeClient(
                self._api_key,
                base_addresses={"api": self._base},
                http_client=WireClient(Wire(self._base), self._base),
                max_network_retries=0,  # a repeat is the outbox's business, where the database sees it
            )
            self._client = (os.getpid(), client)
        return self._client[1]

    def _perform(
        self, step: Step, call: Call, method: str, path: str, params: Mapping[str, Any], *, in_doubt: bool
    ) -> Reply:
        token = _current.set(call)
        try:
            # Not `v1.payment_intents`: that builds a tree of objects out of every answer, which costs more than
            # the rest of the call together and tells us nothing the JSON does not.
            response = self._sdk().raw_request(method, path, **params)
            return _answered(step, call, in_doubt, intent=_intent(response.data))
        except NotSent as error:
            return Reply(step, Sent.NOT_SENT, in_doubt, error.reason)
        except NoAnswer as error:
            return Reply(step, Sent.MAYBE, in_doubt, error.reason)
        except stripe.StripeError as error:
            return _answered(step, call, in_doubt, error=_error(error))
        except (LeaseLost, HorizonPassed):
            raise
        except Exception:
            # The SDK trips over bodies that are JSON but not an object, with whatever exception comes. The answer is
            # complete and unreadable; without one this is a bug and no fact about Stripe.
            if call.answer is None:
                raise
            return _answered(step, call, in_doubt)
        finally:
            _current.reset(token)


def _keyed(params: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The SDK replaces an empty key by a random one in silence; ours is never empty (I6)."""
    if not key:
        raise ValueError("the idempotency key is empty")
    return {**params, "idempotency_key": key}


def _intent(data: object) -> Mapping[str, Any] | None:
    """The PaymentIntent of a 2xx, None when it carries anything else."""
    return data if isinstance(data, dict) and data.get("object") == "payment_intent" else None


def _error(error: stripe.StripeError) -> Mapping[str, Any] | None:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else None


def _answered(
    step: Step,
    call: Call,
    in_doubt: bool,
    *,
    intent: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> Reply:
    answer = call.answer
    if answer is None:  # the SDK refused before it sent anything
        return Reply(step, Sent.NOT_SENT, in_doubt, "sdk")
    return Reply(
        step,
        Sent.ANSWERED,
        in_doubt,
        status=answer.status,
        intent=intent,
        error=error,
        replayed=answer.headers.get("idempotent-replayed") == "true",
        request_id=answer.headers.get("request-id"),
        retry_after=answer.retry_after(),
    )
