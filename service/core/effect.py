"""The effect as it travels: what a caller asked for, and what one attempt at it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from service.core.state import State


class Policy(StrEnum):
    """What to do after an unknown outcome at a *blind* provider (SMTP); keyed providers never need it."""

    AT_MOST_ONCE = "at_most_once"
    AT_LEAST_ONCE = "at_least_once"


class Guarantee(StrEnum):
    """What a provider can do for us (DESIGN §5)."""

    KEYED = "keyed"
    QUERYABLE = "queryable"
    BLIND = "blind"


class Ready(StrEnum):
    """When an effect that acts upon another one may begin: never a refund before its charge has succeeded."""

    SETTLED = "settled"
    """The other one is final."""
    AUTHORISED = "authorised"
    """The other one holds the customer's money and waits for a capture, or is final."""


@dataclass(frozen=True, slots=True)
class Order:
    """One effect to accept. `request` is frozen from here on; `amount` is in minor units of `currency`.

    `concerns` is the effect this one acts upon (a refund's charge); it is not claimed before that one is `ready_when`.
    """

    id: str
    tenant: str
    kind: str
    dedupe_key: str
    fingerprint: str
    request: Mapping[str, Any]
    lane: str
    policy: Policy
    priority: int = 0
    not_before: datetime | None = None
    after_seconds: float | None = None
    """Not before so long after the acceptance, by the database's clock: a caller's may be wrong."""
    amount: int | None = None
    currency: str | None = None
    caused_by: str | None = None
    concerns: str | None = None
    ready_when: Ready | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an `Order`: the effect that carries its key, new (`created`) or accepted before."""

    id: str
    state: State
    created: bool


@dataclass(frozen=True, slots=True)
class Concerned:
    """The effect that another one acts upon, as it stood when the attempt was claimed.

    `ref` is the provider's id of it (a charge's PaymentIntent), None while the provider has not named one. `mark` is
    the effect id that the object carries when it is not this one's own (an adopted orphan).
    """

    id: str
    state: State
    ref: str | None
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claimed try at an effect. `number` is the fencing token: each write of this attempt carries it.

    `prior` is the state before the claim (a lost lease reads as `unknown`). `in_doubt`: an earlier attempt may have
    been carried out. `sent_age_seconds`: database time since the first byte may have gone out, 0 on a first send.
    `tries` and `waited_seconds` are what the budget and the age limit count: since acceptance, the last rest with the
    provider, or a person's replay.
    """

    id: str
    tenant: str
    kind: str
    number: int
    prior: State
    in_doubt: bool
    sent_age_seconds: float
    tries: int
    waited_seconds: float
    request: Mapping[str, Any]
    progress: Mapping[str, Any]
    policy: Policy
    dedupe_key: str
    context: Mapping[str, str]
    concerned: Concerned | None = None
    clock: float | None = None
    """The database's time at the claim, in Unix seconds; None for an attempt that no database has made."""


class LeaseLost(Exception):
    """This attempt no longer owns its effect; it must not send, and may write nothing but a journal fact (I9)."""


class HorizonPassed(Exception):
    """The provider may have forgotten our key: sending it again could be a second effect."""


class Lease(Protocol):
    """An attempt's hold on its effect, as a provider sees it."""

    def guard(self, *, horizon_seconds: float | None = None) -> None:
        """Allow the next bytes to go out; called after the connection is open, right before the first byte.

        Raises LeaseLost when the lease could end before the answer, HorizonPassed when the effect is in doubt and
        older than `horizon_seconds`.
        """

    def record(self, progress: Mapping[str, Any]) -> None:
        """Commit a recovery point (W11), fenced; renews the lease. Raises LeaseLost when fenced out."""

    def seconds_left(self) -> float:
        """The time this attempt may still spend on the provider."""
