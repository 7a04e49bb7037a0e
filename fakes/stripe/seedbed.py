"""Changes gathered up and written in bulk: what makes a hundred thousand payments a matter of seconds.

A `Planting` is a change like any other to the code that makes it. It keeps what it is given, encodes each state of an
object once for the object and its event together, and may leave parts out, so that an audit has something to find.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.stripe import ledger, objects, search
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.change import Change
from fakes.stripe.objects import Json

# Random reads of the indexes stay in memory while they grow; SQLite's own 2 MB would not hold them.
CACHE_KIB = 65_536
_NOTHING = '"data":{"object":null'


@dataclass(slots=True)
class Seedbed:
    """What has been made and not yet written."""

    things: dict[str, Json] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    events: list[tuple[Json, str]] = field(default_factory=list)
    movements: list[ledger.Movement] = field(default_factory=list)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write all of it, in the transaction of the caller."""
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        rows = [(thing, self.bodies.get(each) or objects.encode(thing)) for each, thing in self.things.items()]
        objects.save_many(connection, [*rows, *self.events])
        ledger.move_money(connection, self.movements)
        search.note(connection, (thing for thing in self.things.values() if thing["object"] == "payment_intent"))


@dataclass(frozen=True, slots=True)
class Planting(Change):
    """A change into a seedbed; `without` names what it leaves out."""

    bed: Seedbed = field(default_factory=Seedbed)
    without: frozenset[str] = frozenset()

    def load(self, kind: str, object_id: str | None) -> Json | None:
        """What is in the bed, or in the ground already."""
        return self.bed.things.get(object_id or "") or Change.load(self, kind, object_id)

    def save(self, *things: Json) -> None:
        """Keep all but what is to be missing."""
        for thing in things:
            if thing["object"] not in self.without:
                self.bed.things[thing["id"]] = thing
                self.bed.bodies.pop(thing["id"], None)

    def emit(self, kind: str, about: Json, before: Mapping[str, Any] | None = None) -> None:
        """Say what happened, unless nobody is to hear of it."""
        if "events" in self.without:
            return
        body = self.bed.bodies.get(about["id"]) or objects.encode(about)
        if about["id"] in self.bed.things:
            # As it has just been saved: the object is written with the same text.
            self.bed.bodies[about["id"]] = body
        event = stripe_objects.event(kind, None, self.now, request_id=self.request_id, key=self.key)
        if before:
            event["data"]["previous_attributes"] = dict(before)
        self.bed.events.append((event, objects.encode(event).replace(_NOTHING, f'"data":{{"object":{body}', 1)))

    def move(
        self, kind: ledger.Kind, charge: Json, amount: int, metadata: Mapping[str, str], refund: str | None = None
    ) -> None:
        """Note that money moved, unless that is to be missing."""
        if "ledger" not in self.without:
            self.bed.movements.append(self.movement(kind, charge, amount, metadata, refund))
