"""One thing a provider has told us by webhook: whose object it speaks of, and nothing of what it says about it.

An event is a hint to look, never a fact: it may come twice, late, out of order, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Event:
    """One event by its ids.

    `effect_id` is what the object's metadata names (it may be anybody's), `payment_intent` the intent it is or belongs
    to. `at` is the provider's clock; it says nothing about order.
    """

    provider: str
    id: str
    type: str
    object_id: str
    object_type: str
    effect_id: str | None
    payment_intent: str | None
    at: datetime
    livemode: bool
