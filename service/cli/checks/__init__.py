"""The checks of `doctor`. Each looks at one thing, changes nothing, and never fails itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from service.cli.checks import broker, database, outbox, providers
from service.cli.checks.check import Check, guarded
from service.settings import Settings


def run_all(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which one would mend them."""
    inside: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("life", partial(database.life, settings)),
        ("indexes", database.indexes),
        ("bloat", database.bloat),
        ("outbox", outbox.published),
        ("unknown", outbox.unknown),
        ("key window", outbox.key_window),
        ("parked", outbox.parked),
        ("pairs", outbox.pairs),
        ("lanes", outbox.paused),
        ("operations", outbox.unattended),
        ("providers", outbox.closed_circuits),
    )
    reached = True
    for check in guarded("database", partial(database.database, settings)):
        reached = check.ok
        yield check
    if reached:
        yield from database.server()
        at_head = True
        for check in guarded("tables", database.tables):
            at_head = check.ok
            yield check
        if at_head:  # else each of them would only say so again
            for name, look in inside:
                yield from guarded(name, look)
            yield from outbox.overdue(settings)
    yield from guarded("broker", partial(broker.broker, settings))
    yield from guarded("visibility", partial(broker.visibility, settings))
    yield from guarded("payments", partial(providers.payments, settings))
    yield from guarded("mail", partial(providers.mail, settings))
