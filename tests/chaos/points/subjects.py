"""What is disturbed at its points: one effect of each kind, and what must be there before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

from tests.flow.system import System

_keys = count(1)
Accept = Callable[[], str]


@dataclass(frozen=True)
class Subject:
    """`prepare` does what comes before with nobody armed; what it returns accepts the effect that is disturbed."""

    name: str
    prepare: Callable[[System], Accept]
    by_smtp: bool = False

    def settings(self, system: System) -> Mapping[str, str]:
        """What a worker of this subject is told besides."""
        return {"EMAIL_URL": system.mail.address["smtp_url"]} if self.by_smtp else {}


def _charge(system: System) -> Accept:
    return system.charge


def _refund(system: System) -> Accept:
    """A part: Stripe itself refuses a second whole refund, and would cover up for us."""
    from tasks import task_of

    paid = system.charge()
    system.settles(paid)
    wish = {"charge": paid, "amount": 1200, "currency": "eur"}
    return lambda: str(task_of("refund").apply_async(kwargs=wish, dedupe_key=f"point:{next(_keys)}:refund").id)


def _letter(policy: str) -> Callable[[System], Accept]:
    return lambda system: lambda: system.email(f"point-{next(_keys)}@example.test", policy=policy)


SUBJECTS = {
    one.name: one
    for one in (
        Subject("charge", _charge),
        Subject("refund", _refund),
        Subject("keyed", _letter("at_most_once")),
        Subject("blind_once", _letter("at_most_once"), by_smtp=True),
        Subject("blind_again", _letter("at_least_once"), by_smtp=True),
    )
}
