"""Finds what a lost answer left at Stripe, sending nothing that has an effect.

A list by customer or PaymentIntent is read-after-write; an event names the key of the request that caused it; a search
lags (Stripe: Search; Events; Pagination). Each finding is the object itself, None when all of it was looked through in
vain, or `Deferred` when Stripe did not answer or the time was over: that is no miss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from service.core.effect import Attempt
from service.core.keys import step_key
from service.core.outcome import Deferred
from service.providers.deadline import Deadline
from service.providers.stripe.answers import Expectation, Next, Step, classify
from service.providers.stripe.api import Call, StripeApi
from service.providers.stripe.marks import EFFECT_ID, mark_of

Finding = Mapping[str, Any] | Deferred | None

PAGE_OBJECTS = 100  # the most that Stripe gives
UNFINISHED_SECONDS = 1.0  # nothing is amiss, there is only more to read than fits into one attempt
# Between our clock and Stripe's, and between a first byte that was allowed and one that left.
MARGIN_SECONDS = 3600.0
_INTENTS, _EVENTS = "/v1/payment_intents", "/v1/events"
# Of several PaymentIntents with our mark the one that may have moved money counts; an unconfirmed one never did.
_RANK = ("succeeded", "requires_capture", "processing", "requires_action")


class LookUps:
    """All look-ups of one attempt, within `seconds` together. `before_send` is asked before each.

    A busy account has more pages than one attempt can read: `place` is where the next one goes on.
    """

    def __init__(
        self,
        api: StripeApi,
        seconds: float,
        before_send: Callable[[], None] = lambda: None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = place
        self._api = api
        self._deadline = Deadline(seconds)
        self._before_send = before_send

    def intent(self, attempt: Attempt, expected: Expectation) -> Finding:
        """A charge's PaymentIntent: by its customer, by the key that made it, at last by search."""
        # The database's clock: a worker's own may be hours ahead, and would look past what is there.
        now = time.time() if attempt.clock is None else attempt.clock
        since = int(now - attempt.sent_age_seconds - MARGIN_SECONDS)
        customer = attempt.request.get("customer")
        if customer is not None and not (self.place and self.place["path"] == _EVENTS):
            params = {"customer": customer, "created": {"gte": since}}
            found = _best(attempt.id, self._objects(_INTENTS, params, expected))
            if found is not None and not _refused(found):
                return found
        params = {"types": ["payment_intent.created"], "created": {"gte": since}}
        key = step_key(attempt.id, Step.CREATE.value)
        for event in self._objects(_EVENTS, params, expected):
            if isinstance(event, Deferred):
                return event
            if _key_of(event) == key:
                return _subject(event)
        query = {"query": f"metadata['{EFFECT_ID}']:'{attempt.id}'"}
        found = _best(attempt.id, self._objects(f"{_INTENTS}/search", query, expected))
        # Not every account may search (Stripe: Search, "unavailable in India"); it could only have confirmed the rest.
        return None if _refused(found) else found

    def refund(self, attempt: Attempt, intent: str, expected: Expectation) -> Finding:
        """A refund, among all of its PaymentIntent: exact, for that list is small and read-after-write."""
        for refund in self._objects("/v1/refunds", {"payment_intent": intent}, expected):
            if isinstance(refund, Deferred) or mark_of(refund) == attempt.id:
                return refund
        return None

    def _objects(
        self, path: str, params: Mapping[str, Any], expected: Expectation
    ) -> Iterator[Mapping[str, Any] | Deferred]:
        """Every object of every page; the last one is `Deferred` when a page could not be read."""
        after: dict[str, Any] = self.place["after"] if self.place and self.place["path"] == path else {}
        while True:
            try:
                call = Call(self._deadline.left(), self._before_send)
            except TimeoutError:
                yield Deferred("look_up_unfinished", UNFINISHED_SECONDS, evidence={"path": path})
                return
            reply = self._api.look_up(path, {**params, "limit": PAGE_OBJECTS, **after}, call)
            result = classify(reply, expected)
            if result is not Next.READ or reply.body is None:
                yield result if isinstance(result, Deferred) else Deferred("look_up_unread", evidence=reply.evidence())
                return
            page = [item for item in reply.body.get("data") or [] if isinstance(item, dict)]
            yield from page
            if not page or not reply.body.get("has_more"):
                return
            following = reply.body.get("next_page")
            after = {"page": following} if following else {"starting_after": str(page[-1].get("id"))}
            self.place = {"path": path, "after": after}


def _best(effect_id: str, objects: Iterator[Mapping[str, Any] | Deferred]) -> Finding:
    """The one with our mark that got farthest, among as many as could be read."""
    ours: list[Mapping[str, Any]] = []
    for thing in objects:
        if isinstance(thing, Deferred):
            if not ours:
                return thing
        elif mark_of(thing) == effect_id:
            ours.append(thing)
    return min(ours, key=lambda thing: _rank(thing.get("status")), default=None)


def _refused(found: Finding) -> bool:
    """Stripe does not answer this question at all: the others have to do."""
    return isinstance(found, Deferred) and found.reason == "look_up_refused"


def _rank(status: object) -> int:
    return _RANK.index(str(status)) if status in _RANK else len(_RANK)


def _key_of(event: Mapping[str, Any]) -> str | None:
    request = event.get("request")
    found = request.get("idempotency_key") if isinstance(request, Mapping) else None
    return found if isinstance(found, str) else None


def _subject(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object an event is about, as it was then: good for its id only."""
    data = event.get("data")
    found = data.get("object") if isinstance(data, Mapping) else None
    return found if isinstance(found, Mapping) else {}
