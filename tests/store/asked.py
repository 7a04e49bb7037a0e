"""A provider that is asked: a real object behind the port, which answers what a test tells it and remembers the questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from uuid_utils import uuid7

from service.core.effect import Attempt, Guarantee, Lease, Order, Policy
from service.core.keys import fingerprint
from service.core.outcome import Outcome, Succeeded, Unknown
from service.core.state import State
from service.engine.kind import Kind
from tests.store.answers import final, parked, waiting
from tests.store.books import Books, order


@dataclass
class AskedProvider:
    """Answers look-ups with `says`; `meanwhile` happens while it thinks."""

    says: Outcome = field(default_factory=lambda: Unknown("not_found"))
    meanwhile: Callable[[], object] = lambda: None
    name: str = "stripe"
    guarantee: Guarantee = Guarantee.KEYED
    seen: list[Attempt] = field(default_factory=list)

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:  # noqa: ARG002 - the port's
        raise AssertionError("nothing may be sent")

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        assert seconds > 0
        self.seen.append(attempt)
        self.meanwhile()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def receipt(attempt: Attempt, outcome: Succeeded) -> list[Order]:
    """One letter for each success."""
    request = {"to": "ada@example.test", "subject": "Receipt", "text": outcome.ref}
    return [
        Order(
            id=str(uuid7()),
            tenant=attempt.tenant,
            kind="email",
            dedupe_key=f"{attempt.id}:receipt",
            fingerprint=fingerprint("email", request),
            request=request,
            lane="email",
            policy=Policy.AT_LEAST_ONCE,
            caused_by=attempt.id,
        )
    ]


def kind_of(provider: AskedProvider, name: str = "charge") -> Kind:
    return Kind(name, provider=lambda: provider, follow_up=receipt)


def made(books: Books, state: State, *, reason: str = "no_answer", progress: Mapping[str, Any] | None = None) -> str:
    """A charge that has come to stand so through the store's own statements."""
    [effect_id] = books.accept(order(f"order:{books.count('effects')}:charge"))
    if state is State.PENDING:
        return effect_id
    [attempt] = books.claim(effect_id)
    if progress:
        books.run("update effects set progress = progress || %s where id = %s", _json(progress), effect_id)
    if state in (State.SUCCEEDED, State.FAILED):
        books.settle(final(attempt, state))
    elif state is State.PARKED:
        books.settle(parked(attempt, reason))
    elif state is State.AWAITING:
        books.settle(
            waiting(attempt, state, "awaiting", provider="stripe", provider_ref=f"pi_{effect_id}", after_seconds=300.0)
        )
    elif state is State.UNKNOWN:
        books.settle(waiting(attempt, state, "unknown", after_seconds=300.0))
    return effect_id


def _json(value: Mapping[str, Any]) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(dict(value))


def verified(books: Books, effect_id: str) -> dict[str, Any]:
    """What the last look wrote into the journal."""
    found = books.rows(
        "select actor, attempt, evidence from journal where effect_id = %s and fact = 'verified' order by id desc limit 1",
        effect_id,
    )
    return found[0]


def open_breaks(books: Books) -> list[tuple[str, str]]:
    return [(r["class"], r["subject"]) for r in books.rows("select * from breaks where closed_at is null order by id")]


def quiet(books: Books, effect_id: str, hours: float = 2.0) -> str:
    """As if the last attempt had begun `hours` ago; the journal's guard steps aside for the time machine."""
    books.run("alter table journal disable trigger user")
    books.run("update journal set at = at - %s * interval '1 hour' where effect_id = %s", hours, effect_id)
    books.run("alter table journal enable trigger user")
    return effect_id
