"""The provider inside the model: what a request does when it lands, and what is answered.

Keys are remembered with what was answered, 500s included (Stripe: Idempotent requests); 429 and unstored 400s come from
in front of that memory. An unconfirmed PaymentIntent moves nothing, and one succeeds at most once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.model import decisions as d
from tests.model.world import Provider, World

if TYPE_CHECKING:
    from tests.model.surroundings import Surroundings

Landing = tuple[str, str, Provider, int]
"""What happened, in words; the answer; the provider's books after it; 1 when it was a fault."""
INTENTS_MAX = 2
_LOOK = {"succeeded": d.DONE, "declined": d.DECLINED, "processing": d.WAITS}


def lands(model: Surroundings, books: Provider, item: tuple[str, int], *, faults: int) -> Iterator[Landing]:
    """Everything that may happen when a request reaches the provider."""
    step, number = item
    if faults:
        yield "429", d.FRONT, books, 1
        if model.kind.keyed:
            yield "400 unstored", d.REFUSED, books, 1
    stable = model.has("stable_key")
    if step == "create":
        yield from _create(books, stable=stable, faults=faults)
    elif step == "confirm":
        yield from _confirm(model, books, number, stable=stable, faults=faults)
    elif not model.kind.keyed:
        yield "accepted", d.DONE, _done(model, books), 0
        yield "550", d.DECLINED, books, 0
    elif books.key and stable:
        yield f"replayed {books.key[1]}", _again(books.key[1]), books, 0
    else:
        yield from _send(model, books, faults=faults)


def seen(w: World) -> str:
    """What a person sees who looks at the provider: `done`, `nothing`, or `open` while the bank is still at it."""
    if "processing" in w.provider.intents:
        return "open"
    return "done" if w.provider.money else "nothing"


def _done(model: Surroundings, books: Provider) -> Provider:
    return books._replace(money=min(books.money + 1, model.kind.copies_max + 1))


def _send(model: Surroundings, books: Provider, *, faults: int) -> Iterator[Landing]:
    """One keyed call that moves money, or is a message."""
    done = _done(model, books)
    yield "done", d.DONE, done._replace(key=(0, d.DONE)), 0
    if model.kind is not d.RESEND:
        yield "declined", d.DECLINED, books._replace(key=(0, d.DECLINED)), 0
    if faults:
        yield "500, done", d.ERROR, done._replace(key=(0, d.ERROR)), 1
        yield "500, not done", d.ERROR, books._replace(key=(0, d.ERROR)), 1


def _create(books: Provider, *, stable: bool, faults: int) -> Iterator[Landing]:
    if books.created and stable:
        if books.created > 0:
            yield "replayed intent", f"intent {books.created}", books, 0
        else:
            yield "replayed error", d.ERROR_AGAIN, books, 0
        return
    intents = (*books.intents, "created") if len(books.intents) < INTENTS_MAX else books.intents
    created = books._replace(intents=intents, created=len(intents))
    yield "intent created", f"intent {len(intents)}", created, 0
    if faults:
        yield "500, intent created", d.ERROR, created._replace(created=-1), 1
        yield "500, no intent", d.ERROR, books._replace(created=-1), 1


def _confirm(model: Surroundings, books: Provider, number: int, *, stable: bool, faults: int) -> Iterator[Landing]:
    if books.key and stable:
        of, answer = books.key
        # Our key on another intent's path: other parameters, which the provider refuses.
        yield (
            (f"replayed {answer}", _again(answer), books, 0)
            if of == number
            else ("400 other path", "mismatch", books, 0)
        )
        return
    status = books.intents[number - 1]
    if status != "created" and model.has("intent_succeeds_once"):
        yield f"400, is {status}", f"look {_LOOK[status]}", books, 0
        return
    moved = _with(books, number, "succeeded")
    moved = moved._replace(money=min(books.money + 1, 2))
    yield "done", d.DONE, moved._replace(key=(number, d.DONE)), 0
    yield "declined", d.DECLINED, _with(books, number, "declined")._replace(key=(number, d.DECLINED)), 0
    yield "processing", d.WAITS, _with(books, number, "processing")._replace(key=(number, d.WAITS)), 0
    if faults:
        yield "500, done", d.ERROR, moved._replace(key=(number, d.ERROR)), 1
        yield "500, not done", d.ERROR, books._replace(key=(number, d.ERROR)), 1


def _again(answer: str) -> str:
    return d.ERROR_AGAIN if answer == d.ERROR else answer


def _with(books: Provider, number: int, status: str) -> Provider:
    return books._replace(intents=(*books.intents[: number - 1], status, *books.intents[number:]))
