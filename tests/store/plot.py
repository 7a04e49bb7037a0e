"""Both sides of a ledger written by hand: effects past all of our code, objects through the fake's back door."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from uuid_utils import uuid7

from service.core.keys import fingerprint
from tests.contract.fake_servers import FakeServer
from tests.store.books import Books

SETTLED = ("succeeded", "failed")
PLANT_BATCH = 200


def hours(count: float) -> datetime:
    """So many hours ago."""
    return datetime.now(UTC) - timedelta(hours=count)


class Plot:
    """Where effects and objects are planted; `plant()` puts what was wished for into the fake."""

    def __init__(self, url: str, fake: FakeServer) -> None:
        self.books = Books(url)
        self.fake = fake
        for table in ("effects", "journal"):  # of this test's own database: a broken book is what is to be planted
            self.books.run(f"alter table {table} disable trigger user")
        self._wishes: list[tuple[str | None, dict[str, Any]]] = []
        self.letters: list[dict[str, Any]] = []

    def close(self) -> None:
        self.books.close()

    def effect(self, kind: str = "charge", state: str = "succeeded", *, at: datetime, **changes: Any) -> str:
        """One effect with its journal, and an outbox row while it is unsettled."""
        own = str(uuid7())
        money = {"amount": 4200, "currency": "eur"} if kind in ("charge", "refund", "capture") else {}
        money |= {name: changes.pop(name) for name in ("amount", "currency") if name in changes}
        more = changes.pop("request", {})
        to = {"to": "ada@example.test"} if kind == "email" else {}
        request = {**money, **to, **more}
        duty = changes.pop("duty", {})
        columns: dict[str, Any] = {
            "id": own, "tenant": "default", "kind": kind, "dedupe_key": f"{kind}:{own}",
            "fingerprint": fingerprint(kind, request), "request": Jsonb(request), "state": state, "attempt": 1,
            "policy": "at_most_once", "first_sent_at": at, "created_at": at - timedelta(seconds=1),
            "in_doubt": state == "unknown", "provider": "resend" if kind == "email" else "stripe", **money,
        }  # fmt: skip
        if state in SETTLED:
            columns |= {"settled_at": at + timedelta(seconds=5), "outcome": Jsonb({}), "failed": state == "failed"}
        if state == "executing":
            columns["lease_until"] = at + timedelta(seconds=90)
        columns |= changes
        self._insert("effects", columns)
        for fact in ("accepted", "claimed", *([state] if state in (*SETTLED, "unknown", "awaiting", "parked") else [])):
            self.fact(own, fact, at=at, attempt=0 if fact == "accepted" else 1)
        if state not in SETTLED and duty is not None:
            self.duty(own, state, **duty)
        return own

    def duty(self, own: str, state: str = "pending", **changes: Any) -> None:
        parked = {"road": "parked", "parked_at": hours(0), "parked_reason": "test"} if state == "parked" else {}
        later = {"road": "later", "available_at": hours(-1)}
        self._insert("outbox", {"effect_id": own, "kind": "charge", "lane": "charge", **later, **parked, **changes})

    def fact(self, own: str, fact: str, *, at: datetime, attempt: int = 1, **evidence: Any) -> None:
        columns = {"effect_id": own, "fact": fact, "at": at, "attempt": attempt, "actor": "test"}
        self._insert("journal", {**columns, "evidence": Jsonb(evidence)})

    def settled(self, own: str, ref: str) -> None:
        self.books.run("update effects set provider_ref = %s where id = %s", ref, own)

    def _insert(self, table: str, columns: dict[str, Any]) -> None:
        marks = ", ".join(["%s"] * len(columns))
        self.books.run(f"insert into {table} ({', '.join(columns)}) values ({marks})", *columns.values())

    # --- the provider's side -----------------------------------------------------------------------------------

    def object(self, own: str | None, *, at: datetime, refer: bool = True, **wish: Any) -> None:
        """A PaymentIntent that names the effect; with `refer` the effect holds its id once it is planted."""
        about = {"metadata": {"effect_id": own}, "key": f"{own}:create"} if own else {}
        amount = {"amount": 4200, "currency": "eur", "created": int(at.timestamp())}
        self._wishes.append((own if refer else None, {**amount, **about, **wish}))

    def charge(self, *, at: datetime, **changes: Any) -> str:
        """A charge that both sides have."""
        wish = changes.pop("wish", {})
        own = self.effect(at=at, **changes)
        money = {name: changes[name] for name in ("amount", "currency") if name in changes}
        self.object(own, at=at, **{**money, **wish})
        return own

    def refund(self, charge_wish: dict[str, Any], charge: str, *, at: datetime, amount: int, **changes: Any) -> str:
        """A refund effect of `charge`, and its refund among the wishes of the charge's object."""
        linked = {"concerns": charge, "ready_when": "settled", "amount": amount, "at": at, **changes}
        own = self.effect("refund", **linked)
        wish = {"amount": amount, "created": int(at.timestamp()), "metadata": {"effect_id": own}}
        charge_wish.setdefault("refunds", []).append({**wish, "key": f"{own}:refund"})
        return own

    def letter(self, own: str, *, at: datetime, recipient: str = "ada@example.test") -> None:
        copy = {"id": f"m{len(self.letters)}", "idempotency_key": f"{own}:send", "recipient": recipient}
        self.letters.append({**copy, "at": at.timestamp()})

    def plant(self) -> list[dict[str, Any]]:
        """Plant all wishes; the effects that refer to them hold their ids afterwards."""
        planted: list[dict[str, Any]] = []
        for i in range(0, len(self._wishes), PLANT_BATCH):
            some = self._wishes[i : i + PLANT_BATCH]
            made = self.fake.admin("plant", {"intents": [wish for _, wish in some]})["planted"]
            planted += made
            for (own, wish), ids in zip(some, made, strict=True):
                if own:
                    self.settled(own, ids["payment_intent"])
                    self.books.run("update effects set outcome = outcome || %s where id = %s and outcome is not null",
                                   Jsonb({"charge": ids["charge"]}), own)  # fmt: skip
                for asked, refund in zip(wish.get("refunds", ()), ids.get("refunds", ()), strict=True):
                    self.books.run(
                        "update effects set provider_ref = %s where id = %s and kind = 'refund' and state = 'succeeded'"
                        " and provider_ref is null",
                        refund,
                        asked["metadata"].get("effect_id"),
                    )
        self._wishes.clear()
        return planted

    def hear(self, events: list[dict[str, Any]], *, except_for: frozenset[str] = frozenset()) -> None:
        """The inbox of a service that was told all these events but some."""
        for event in events:
            if event["id"] not in except_for:
                self._insert("inbox", {
                    "provider": "stripe", "event_id": event["id"], "type": event["type"],
                    "object_id": event["data"]["object"]["id"], "object_type": event["data"]["object"]["object"],
                    "event_at": datetime.fromtimestamp(event["created"], UTC), "processed_at": hours(0),
                    "result": "agrees",
                })  # fmt: skip

    def mail_ledger(self) -> str:
        """The letters as JSON lines."""
        return "".join(json.dumps(letter) + "\n" for letter in self.letters)
