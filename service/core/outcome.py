"""What one attempt learned. Expected failures are values; whatever is not classified is `Unknown`.

An *own* answer comes from the provider's idempotency layer or endpoint for this key: it settles. A *front* answer
(429, 401, 409 in progress, refused connection) says only that this send did nothing, and nothing about an
earlier one: the effect goes back to the state it had before the claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Own answer: the provider has it. `ref` is the provider's id; `detail` goes to the caller as the outcome."""

    ref: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """Own answer: the provider does not have it and this effect will never make it so (a decline, a 400)."""

    code: str
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Awaiting:
    """Own answer: accepted, the result comes later. The effect is asked after again in `poll_after_seconds`."""

    reason: str
    ref: str | None = None
    poll_after_seconds: float = 60.0
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Deferred:
    """Front answer or never sent: this send did nothing; an earlier unknown stays unknown.

    `after_seconds` is the provider's own wish (Retry-After); None means our backoff.
    """

    reason: str
    after_seconds: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request may or may not have been carried out: no answer, a stored 500, a torn body (W7, W8).

    `after_seconds` is when to ask again at the earliest; None means our backoff.
    """

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Proof of absence: two look-ups, far enough apart, found nothing when all that was sent had to have landed.

    `harmless`: sending again could not move money a second time even if the proof were wrong (an unconfirmed
    PaymentIntent); otherwise the effect's policy decides, or a person.
    """

    reason: str
    harmless: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Something that cannot be if everything is as we believe (echo mismatch, idempotency_error): a person looks."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


Outcome = Succeeded | Failed | Awaiting | Deferred | Unknown | Absent | Contradiction
