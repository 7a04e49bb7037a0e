"""The Stripe SDK at arm's length: it owns encoding, version and errors; phases, deadline and retries are ours.

The only module that imports `stripe`. Every call answers with a `Reply`, the bare facts; what they mean is decided in
`answers`. What the guard raises right before the first byte passes through untouched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import stripe

from service.core.effect import HorizonPassed, LeaseLost
from service.core.errors import DependencyUnavailable
from service.providers.http1 import Answer
from service.providers.stripe.reply import READS, Reply, Sent, Step
from service.providers.wire import NoAnswer, NotSent, Wire

stripe.enable_telemetry = False  # else the SDK writes an id into the home directory and reports timings
# The SDK logs parameters and error texts of callers; what we log of a call is in the journal.
logging.getLogger("stripe").setLevel(logging.WARNING)


_INTENTS, _REFUNDS = "/v1/payment_intents", "/v1/refunds"
Wanted = tuple[str, ...]
"""The `object` names one of which the body of a 2xx must carry."""
_INTENT, _REFUND, _LISTS = ("payment_intent",), ("refund",), ("list", "search_result")


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
    """The calls of charges, refunds, captures and look-ups. Safe in threads, greenlets and forked children."""

    def __init__(self, api_key: str, base: str) -> None:
        self._api_key = api_key
        self._base = base.rstrip("/")
        self._client: tuple[int, stripe.StripeClient] | None = None

    def create(self, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Create a PaymentIntent; unconfirmed, it moves no money."""
        return self._post(Step.CREATE, _INTENTS, params, key, call, in_doubt=in_doubt)

    def confirm(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Confirm it: the one call that moves money. A PaymentIntent succeeds at most once."""
        return self._post(Step.CONFIRM, f"{_named(_INTENTS, intent)}/confirm", params, key, call, in_doubt=in_doubt)

    def capture(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Take what an earlier confirm reserved. A PaymentIntent is captured at most once."""
        return self._post(Step.CAPTURE, f"{_named(_INTENTS, intent)}/capture", params, key, call, in_doubt=in_doubt)

    def cancel(self, intent: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """End a PaymentIntent that has not succeeded; it never will."""
        return self._post(Step.CANCEL, f"{_named(_INTENTS, intent)}/cancel", params, key, call, in_doubt=in_doubt)

    def refund(self, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        """Give money back. Nothing but the key stands between a repeat and a second refund."""
        return self._post(Step.REFUND, _REFUNDS, params, key, call, in_doubt=in_doubt)

    def retrieve(self, intent: str, call: Call, *, in_doubt: bool = False) -> Reply:
        """Ask what became of a PaymentIntent; strongly consistent and without effect."""
        return self._get(Step.RETRIEVE, _named(_INTENTS, intent), {}, call, _INTENT, in_doubt=in_doubt)

    def retrieve_refund(self, refund: str, call: Call) -> Reply:
        """Ask what became of a refund."""
        return self._get(Step.RETRIEVE, _named(_REFUNDS, refund), {}, call, _REFUND)

    def look_up(self, path: str, params: Mapping[str, Any], call: Call) -> Reply:
        """One page of a list or a search; without effect."""
        return self._get(Step.LOOK_UP, path, params, call, _LISTS)

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

    def _post(self, step: Step, path: str, params: Mapping[str, Any], key: str, call: Call, *, in_doubt: bool) -> Reply:
        wanted = _REFUND if step is Step.REFUND else _INTENT
        return self._perform(Reply(step, Sent.NOT_SENT, in_doubt), call, path, _keyed(params, key), wanted)

    def _get(
        self, step: Step, path: str, params: Mapping[str, Any], call: Call, wanted: Wanted, *, in_doubt: bool = False
    ) -> Reply:
        return self._perform(Reply(step, Sent.NOT_SENT, in_doubt), call, path, params, wanted)

    def _perform(self, unsent: Reply, call: Call, path: str, params: Mapping[str, Any], wanted: Wanted) -> Reply:
        token = _current.set(call)
        try:
            # Not `v1.payment_intents`: that builds a tree of objects out of every answer, which costs more than
            # the rest of the call together and tells us nothing the JSON does not.
            response = self._sdk().raw_request("get" if unsent.step in READS else "post", path, **params)
            return _answered(unsent, call, body=_object(response.data, wanted))
        except NotSent as error:
            return replace(unsent, reason=error.reason)
        except NoAnswer as error:
            return replace(unsent, sent=Sent.MAYBE, reason=error.reason)
        except stripe.StripeError as error:
            return _answered(unsent, call, error=_error(error))
        except (LeaseLost, HorizonPassed):
            raise
        except Exception:
            # The SDK trips over bodies that are JSON but not an object, with whatever exception comes. The answer is
            # complete and unreadable; without one this is a bug and no fact about Stripe.
            if call.answer is None:
                raise
            return _answered(unsent, call)
        finally:
            _current.reset(token)


def _named(path: str, name: str) -> str:
    return f"{path}/{quote(name, safe='')}"


def _keyed(params: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The SDK replaces an empty key by a random one in silence; ours is never empty (I6)."""
    if not key:
        raise ValueError("the idempotency key is empty")
    return {**params, "idempotency_key": key}


def _object(data: object, wanted: Wanted) -> Mapping[str, Any] | None:
    """The object of a 2xx, None when it carries anything but what was asked for."""
    return data if isinstance(data, dict) and data.get("object") in wanted else None


def _error(error: stripe.StripeError) -> Mapping[str, Any] | None:
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else None


def _answered(
    unsent: Reply, call: Call, *, body: Mapping[str, Any] | None = None, error: Mapping[str, Any] | None = None
) -> Reply:
    answer = call.answer
    if answer is None:  # the SDK refused before it sent anything
        return replace(unsent, reason="sdk")
    return replace(
        unsent,
        sent=Sent.ANSWERED,
        status=answer.status,
        body=body,
        error=error,
        replayed=answer.headers.get("idempotent-replayed") == "true",
        request_id=answer.headers.get("request-id"),
        retry_after=answer.retry_after(),
    )
