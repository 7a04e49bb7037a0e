"""One state of the model: plain tuples of small values, so that millions of them can be kept and compared."""

from __future__ import annotations

from typing import NamedTuple

ILLEGAL, ZOMBIE, LATE = 1, 2, 4
"""What went wrong on the way here: a move the table forbids, a write by a former owner, a send after the forgetting."""


class Row(NamedTuple):
    """The effect's row and its outbox row. `missed`: a look-up without a hit is recorded, 2 when it is an hour old;
    `looked`: the same of a person, who starts again when an attempt has come between.
    """

    state: str = "none"
    leased: int = 0
    doubt: int = 0
    sent: int = 0
    progress: int = 0
    missed: int = 0
    looked: int = 0
    road: str = "gone"


class Provider(NamedTuple):
    """The provider's own books. `clock`: 0 within our horizon, 1 past it, 2 when it may have forgotten our keys.

    `created` is the memory of the create key, `key` that of the key which moves money: what was answered, and for
    which intent. `intents` are the PaymentIntents by status. `money`: how often the effect was done.
    """

    clock: int = 0
    created: int = 0
    key: tuple[int, str] | None = None
    intents: tuple[str, ...] = ()
    money: int = 0


class Worker(NamedTuple):
    """One attempt as its worker knows it; `owner` is 1 until another attempt is claimed. `again`: confirmed in doubt."""

    step: str = "idle"
    owner: int = 0
    prior: str = ""
    doubt: int = 0
    known: int = 0
    again: int = 0
    told: str = ""


class Marks(NamedTuple):
    """What the properties need to remember of the past. `twin`: a second row of the same dedupe key."""

    ledger: int = 0
    flagged: int = 0
    absent: int = 0
    twin: int = 0
    broken: int = 0


class World(NamedTuple):
    """Everything there is. `net`: requests whose sender no longer waits. `faults`: how many may still happen."""

    row: Row
    provider: Provider
    net: tuple[tuple[str, int], ...]
    messages: int
    faults: int
    marks: Marks
    workers: tuple[Worker, ...]

    def manned(self, workers: tuple[Worker, ...]) -> World:
        """The same with other workers. What `_replace` does, at a third of the time; every action needs it."""
        return tuple.__new__(World, (*self[:-1], workers))


IDLE = Worker()
