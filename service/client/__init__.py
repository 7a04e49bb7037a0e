"""A typed client of the HTTP API, synchronous and asynchronous: `from service.client import Counterfoil`.

It repeats what is provably safe to repeat, always under the same key, waits as long as Retry-After asks, and raises
problems as exceptions by name. It knows nothing of the service but its HTTP API.
"""

from service.client.answers import (
    Accepted,
    Batch,
    BatchItem,
    Effect,
    Event,
    Group,
    Item,
    Operation,
    Page,
    Plan,
    Problem,
)
from service.client.asynchronous import AsyncCounterfoil
from service.client.errors import (
    BatchRefused,
    Conflict,
    CounterfoilProblem,
    NotAllowed,
    NotFound,
    Refused,
    StillOpen,
    Unavailable,
)
from service.client.synchronous import Counterfoil

__all__ = [
    "Accepted",
    "AsyncCounterfoil",
    "Batch",
    "BatchItem",
    "BatchRefused",
    "Conflict",
    "Counterfoil",
    "CounterfoilProblem",
    "Effect",
    "Event",
    "Group",
    "Item",
    "NotAllowed",
    "NotFound",
    "Operation",
    "Page",
    "Plan",
    "Problem",
    "Refused",
    "StillOpen",
    "Unavailable",
]
