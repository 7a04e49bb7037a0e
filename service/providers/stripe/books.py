"""What Stripe has on its books for a window of time, as plain rows: PaymentIntents, refunds, balance lines, events.

Read page by page, four lists at a time through a short queue, so that a year needs no more memory than an hour and the
wait for one list is spent on another. Reading has no effect; nothing here decides anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from queue import Full, Queue
from typing import Any

from service.core.errors import DependencyUnavailable
from service.providers.build import charge_provider
from service.providers.stripe.api import Call, StripeApi
from service.providers.stripe.attempt import StripeProvider
from service.providers.stripe.pages import pages
from service.providers.stripe.reply import Reply
from service.providers.stripe.rows import Intent, Movement, Refund, Row, SeenEvent, event, intent, movement, refund
from service.settings import Settings

QUEUED_PAGES_MAX = 8  # a page is a hundred objects: enough that no reader waits for the database, and no memory
# A long window is read in slices, so that neither side walks through a month to find its next page.
SLICE_SECONDS = 6 * 3600
QUEUE_SECONDS = 0.5  # how soon a reader notices that nobody listens any more


# What an audit asks of events: which key made an object, and whether our inbox was told how it ended. Stripe lists at
# most twenty types at a time, and events for thirty days (Stripe: List all events).
EVENT_TYPES = (
    "payment_intent.created",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.amount_capturable_updated",
    "refund.created",
    "refund.failed",
)
Batch = tuple[type[Row], Sequence[Row]]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One of Stripe's lists."""

    path: str
    row: type[Row]
    read: Callable[[Mapping[str, Any]], Row | None]
    params: Mapping[str, Any] = field(default_factory=dict)


def books(settings: Settings) -> StripeApi:
    """Stripe, as the settings name it. Raises SettingsError; DependencyUnavailable when it does not let itself be read.

    Asked once without patience, so that a wrong key is told now and not after minutes of waiting for better weather.
    """
    provider = charge_provider(settings)
    assert isinstance(provider, StripeProvider)  # noqa: S101 - charges go to Stripe
    provider.api.read("/v1/balance_transactions", {"limit": 1}, seconds=settings.provider_deadline)
    return provider.api


def scan(api: StripeApi, since: datetime, until: datetime, *, seconds: float) -> Iterator[Batch]:
    """All that was created in [since, until), in batches of one sort; `seconds` for one page.

    Raises DependencyUnavailable.
    """
    slices = _slices(int(since.timestamp()), int(until.timestamp()) + 1)
    room: Queue[Batch | Exception | None] = Queue(QUEUED_PAGES_MAX)
    over = threading.Event()

    def read(shelf: Shelf) -> None:
        try:
            for created in slices:
                for page in pages(api, shelf.path, {**shelf.params, "created": created}, seconds=seconds):
                    rows = [row for thing in page if (row := shelf.read(thing)) is not None]
                    if not _put(room, (shelf.row, rows), over):
                        return
        except Exception as error:  # noqa: BLE001 - carried to the thread that asked, and raised there
            _put(room, error, over)
        finally:
            _put(room, None, over)

    readers = [threading.Thread(target=read, args=(shelf,), name=f"books {shelf.path}") for shelf in SHELVES]
    for reader in readers:
        reader.start()
    try:
        yield from _until_all_are_done(room, len(readers))
    finally:
        over.set()
        for reader in readers:
            reader.join()


def _slices(first: int, end: int) -> list[dict[str, int]]:
    """The window as `created` conditions, newest first like each list."""
    begins = range(first, end, SLICE_SECONDS)
    return [{"gte": begin, "lt": min(begin + SLICE_SECONDS, end)} for begin in reversed(begins)]


def _put(room: Queue[Batch | Exception | None], thing: Batch | Exception | None, over: threading.Event) -> bool:
    while not over.is_set():
        try:
            room.put(thing, timeout=QUEUE_SECONDS)
        except Full:
            continue
        return True
    return False


def _until_all_are_done(room: Queue[Batch | Exception | None], reading: int) -> Iterator[Batch]:
    while reading:
        thing = room.get()
        if thing is None:
            reading -= 1
        elif isinstance(thing, Exception):
            raise thing
        else:
            yield thing


def one_intent(api: StripeApi, ref: str, *, seconds: float) -> Iterator[Batch]:
    """One PaymentIntent and its balance lines, whatever their age; nothing when there is none."""
    found = _body(api.retrieve(ref, Call(seconds, lambda: None)))
    if found:
        row = intent(found)
        yield Intent, [row]
        if row.charge:
            yield Movement, _movements_of(api, row.charge, seconds)


def one_refund(api: StripeApi, ref: str, *, seconds: float) -> Iterator[Batch]:
    """One refund and its balance lines, whatever their age; nothing when there is none."""
    found = _body(api.retrieve_refund(ref, Call(seconds, lambda: None)))
    if found:
        yield Refund, [refund(found)]
        yield Movement, _movements_of(api, ref, seconds)


def _body(reply: Reply) -> Mapping[str, Any] | None:
    if reply.status == 200 and reply.body is not None:
        return reply.body
    if reply.status == 404:
        return None
    raise DependencyUnavailable(f"Stripe does not show an object: {reply.status or reply.reason}: try again later")


def _movements_of(api: StripeApi, source: str, seconds: float) -> list[Row]:
    page = api.read("/v1/balance_transactions", {"source": source, "expand": ["data.source"]}, seconds=seconds)
    return [row for thing in page.get("data", []) if (row := movement(thing)) is not None]


SHELVES = (
    Shelf("/v1/payment_intents", Intent, intent),
    Shelf("/v1/refunds", Refund, refund),
    Shelf("/v1/balance_transactions", Movement, movement, {"expand": ["data.source"]}),
    Shelf("/v1/events", SeenEvent, event, {"types": list(EVENT_TYPES)}),
)
