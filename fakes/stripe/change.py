"""One change of Stripe's objects: everything written together, and the events saying which request asked for it.

An event carries its request's id and idempotency key. That is the look-up by key after a lost answer (W8), and what
happens without a request (a hold that ran out, a bank that answered days later) carries neither.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fakes.house.pipeline import Call, Refused
from fakes.stripe import errors as stripe_errors
from fakes.stripe import ledger, objects, search, settings
from fakes.stripe import shapes as stripe_objects
from fakes.stripe.objects import Json


@dataclass(frozen=True, slots=True)
class Change:
    """An open transaction, its time, and who asked."""

    connection: sqlite3.Connection
    at: float
    request_id: str | None = None
    key: str | None = None

    @classmethod
    def asked_by(cls, call: Call) -> Change:
        """What a request changes."""
        return cls(call.connection, call.arrival.at, call.arrival.request_id, call.arrival.key)

    @property
    def now(self) -> int:
        """Whole seconds, as objects carry them."""
        return int(self.at)

    @property
    def settings(self) -> settings.Settings:
        """How the fake is set."""
        return settings.read(self.connection)

    def load(self, kind: str, object_id: str | None) -> Json | None:
        """One object, or None."""
        return objects.load(self.connection, kind, object_id) if object_id else None

    def need(self, kind: str, object_id: str, param: str, status: int = 400) -> Json:
        """One object. Raises Refused."""
        found = self.load(kind, object_id)
        if found is None:
            raise Refused(stripe_errors.no_such(kind, object_id, param, status))
        return found

    def save(self, *things: Json) -> None:
        """Insert or replace objects; PaymentIntents are written into the search index as well."""
        for thing in things:
            objects.save(self.connection, thing)
            if thing["object"] == "payment_intent":
                search.note(self.connection, [thing], self.at)

    def emit(self, kind: str, about: Json, before: Mapping[str, Any] | None = None) -> None:
        """Say what happened to an object; `before` holds what changed, as it was."""
        event = stripe_objects.event(kind, about, self.now, request_id=self.request_id, key=self.key)
        if before:
            event["data"]["previous_attributes"] = dict(before)
        objects.save(self.connection, event)

    def move(
        self, kind: ledger.Kind, charge: Json, amount: int, metadata: Mapping[str, str], refund: str | None = None
    ) -> None:
        """Write into the ledger that money moved."""
        ledger.move_money(self.connection, [self.movement(kind, charge, amount, metadata, refund)])

    def movement(
        self, kind: ledger.Kind, charge: Json, amount: int, metadata: Mapping[str, str], refund: str | None
    ) -> ledger.Movement:
        """Money that moved because of this change."""
        return ledger.Movement(
            kind=kind,
            amount=amount,
            currency=charge["currency"],
            payment_intent=charge["payment_intent"],
            charge=charge["id"],
            key=self.key,
            metadata=metadata,
            at=self.at,
            refund=refund,
        )
