"""The port every provider is reached through: it performs one attempt and reports an `Outcome`; it never decides."""

from __future__ import annotations

from typing import Protocol

from service.core.effect import Attempt, Guarantee, Lease
from service.core.outcome import Outcome


class Provider(Protocol):
    """One outside system for one kind of effect. Built per process, after the fork; safe to call from threads."""

    @property
    def name(self) -> str:
        """`stripe`, `smtp`, `resend`: stored with the effect, unique together with the provider's reference."""

    @property
    def guarantee(self) -> Guarantee:
        """Whether it dedupes on our key, can be asked, or neither (DESIGN: three classes of effect)."""

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        """Carry the attempt as far as the provider lets it go; blocking, at most the lease's `seconds_left()`.

        Calls `lease.guard()` after each connection is open and before its first byte, `lease.record()` at recovery
        points. Lets LeaseLost through; everything else it cannot classify is `Unknown`.
        """

    def look_up(self, attempt: Attempt, *, seconds: float) -> Outcome:
        """Ask what became of it, sending nothing that has an effect; blocking, at most `seconds`.

        Found: its outcome. `Unknown("not_found")`: nothing was found, which proves nothing by itself.
        `Unknown("cannot_be_asked")`: this provider has no way to tell. `Deferred`: it does not answer now.
        """
