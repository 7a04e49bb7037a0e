"""One effect, one fault, and time: the whole way of an effect with real Postgres, real sockets and the fakes' ledgers.

The executor runs in this process, so that a hundred and forty ends can be seen in a minute; processes and brokers are
disturbed elsewhere. Time passes in both worlds at once: the fake's clock goes on, the database's moments go back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg

from service.engine.execute import Executor
from service.engine.kind import Kind
from service.providers import build
from service.settings import Settings
from tests.contract.fake_servers import FakeServer
from tests.store.books import Books

DEADLINE_SECONDS = 0.6
HANG_SECONDS = 2.0
ROUNDS_MAX = 6
HOURS_BETWEEN_ROUNDS = 2.0
KEYED, BLIND = "resend", "smtp"

HTTP_FAULTS: Mapping[str, dict[str, Any]] = {
    "F1": {"action": "close_before"},
    "F2": {"action": "status_429"},
    "F3": {"action": "conflict_409"},
    "F4": {"action": "status_500_stored_before"},
    "F5": {"action": "status_500_stored_after"},
    "F6": {"action": "status_502_html"},
    "F7": {"action": "close_after"},
    "F8": {"action": "hang", "seconds": HANG_SECONDS},
    "F9": {"action": "truncate"},
    "F10": {"action": "drip"},
}
# SMTP has no keys and no status page: the same ten troubles as its phases know them (RFC 5321).
SMTP_FAULTS: Mapping[str, dict[str, Any]] = {
    "F1": {"action": "close", "route": "mail"},
    "F2": {"action": "reject", "route": "rcpt", "code": 450},
    "F3": {"action": "reject", "route": "data", "code": 451},
    "F4": {"action": "reject", "route": "before_accept", "code": 451},
    "F5": {"action": "close", "route": "before_accept"},
    "F6": {"action": "close", "route": "banner"},
    "F7": {"action": "close", "route": "after_accept"},
    "F8": {"action": "hang", "route": "after_accept", "seconds": HANG_SECONDS},
    "F9": {"action": "close", "route": "data"},
    "F10": {"action": "slow", "route": "ehlo", "seconds": HANG_SECONDS},
}


@dataclass(frozen=True)
class Subject:
    """What is disturbed: a kind of effect, and the request of it that the fault meets."""

    kind: str
    route: str
    request: Mapping[str, Any]
    mail: str = KEYED


_LETTER = {"to": "ada@example.test", "subject": "Hello", "text": "Hello Ada"}
_MONEY = {"amount": 4200, "currency": "eur"}
_CHARGE = {**_MONEY, "payment_method": "pm_card_visa"}
SUBJECTS = {
    "create": Subject("charge", "create", _CHARGE),
    "confirm": Subject("charge", "confirm", _CHARGE),
    # A part: Stripe itself refuses a second whole refund, and would cover up for us.
    "refund": Subject("refund", "refund", {**_MONEY, "amount": 1200}),
    "capture": Subject("capture", "capture", _MONEY),
    "keyed": Subject("email", "emails", _LETTER),
    "blind_once": Subject("email", "", {**_LETTER, "policy": "at_most_once"}, BLIND),
    "blind_again": Subject("email", "", {**_LETTER, "policy": "at_least_once"}, BLIND),
}


@dataclass(frozen=True)
class End:
    """How an effect stands when nothing more happens by itself, and what the provider really has."""

    state: str
    done: int
    reason: str | None = None
    flagged: bool = False


class Stage:
    """Both providers, the books of this test, and the executor of a worker."""

    def __init__(self, books: Books, stripe: FakeServer, mail: FakeServer) -> None:
        self.books = books
        self.stripe = stripe
        self.mail = mail
        self._executor = Executor(self._settings(KEYED), actor="worker")

    def _settings(self, mail: str) -> Settings:
        urls = {
            KEYED: f"resend+http://re_1@127.0.0.1:{self.mail.address['http_port']}",
            BLIND: self.mail.address["smtp_url"],
        }
        return Settings(
            stripe_api_key="sk_test_matrix",
            stripe_api_base=f"http://127.0.0.1:{self.stripe.address['port']}",
            email_url=urls[mail],
            provider_deadline=DEADLINE_SECONDS,
            lease=5.0,
            redelivery=6.0,
        )

    def kind(self, subject: Subject) -> Kind:
        from tasks import KINDS

        settings = self._settings(subject.mail)
        makers = {
            "charge": build.charge_provider,
            "refund": build.refund_provider,
            "capture": build.capture_provider,
            "cancel": build.cancel_provider,
            "email": build.email_provider,
        }
        provider = makers[subject.kind](settings)
        return replace(KINDS[subject.kind], provider=lambda: provider)

    def accept(self, subject: Subject) -> str:
        """Accept the effect, after whatever it acts upon has come far enough."""
        from tasks import task_of

        request = dict(subject.request)
        if subject.kind in ("refund", "capture") and "charge" not in request:
            first = {**_CHARGE, "capture_method": "manual"} if subject.kind == "capture" else _CHARGE
            charge = task_of("charge").apply_async(kwargs=first, dedupe_key=f"charge:{uuid4()}").id
            self.perform(charge, SUBJECTS["confirm"])
            request["charge"] = charge
        return task_of(subject.kind).apply_async(kwargs=request, dedupe_key=f"{subject.kind}:{uuid4()}").id

    def disturb(self, subject: Subject, effect_id: str, fault: str) -> None:
        """Let the next request of this effect meet the fault, once."""
        if subject.mail == BLIND:
            self.mail.fault(
                times=1,
                **{k: v for k, v in SMTP_FAULTS[fault].items() if k != "action"},
                action=SMTP_FAULTS[fault]["action"],
            )
            return
        server = self.mail if subject.kind == "email" else self.stripe
        server.fault(times=1, route=subject.route, key=effect_id, **HTTP_FAULTS[fault])

    def perform(self, effect_id: str, subject: Subject) -> str:
        """One delivery of the message, now; the state it leaves."""
        self.books.make_due(effect_id)
        self._executor.run(self.kind(subject), [effect_id])
        return self.state(effect_id)

    def state(self, effect_id: str) -> str:
        return str(self.books.effect(effect_id)["state"])

    def settle(self, effect_id: str, subject: Subject, *, hours_between: float = 0.0) -> str:
        """Deliver until it is final or waits for a person; with `hours_between`, time passes in both worlds."""
        for _ in range(ROUNDS_MAX):
            if self.state(effect_id) in ("succeeded", "failed", "parked"):
                break
            if hours_between:
                self.age(effect_id, hours_between)
            self.perform(effect_id, subject)
        return self.state(effect_id)

    def age(self, effect_id: str, hours: float) -> None:
        """`hours` pass: at the provider and for this effect."""
        self.stripe.advance(hours)
        self.mail.advance(hours)
        with psycopg.connect(self.books.url) as connection:
            # Time travel is no business of the triggers that keep the first send where it was.
            connection.execute("alter table effects disable trigger user")
            connection.execute(
                "update effects set first_sent_at = first_sent_at - %(by)s, created_at = created_at - %(by)s,"
                " patience_from = patience_from - %(by)s where id = %(id)s",
                {"by": timedelta(hours=hours), "id": effect_id},
            )
            connection.execute("alter table effects enable trigger user")

    def alter(self, effect_id: str, **changes: object) -> None:
        """Change an accepted effect behind the triggers' back, as a bug or a hand in the database would."""
        columns = ", ".join(f"{name} = %({name})s" for name in changes)
        with psycopg.connect(self.books.url) as connection:
            connection.execute("alter table effects disable trigger user")
            connection.execute(f"update effects set {columns} where id = %(id)s", {**changes, "id": effect_id})
            connection.execute("alter table effects enable trigger user")

    def play(self, subject: Subject, fault: str, hours: float) -> tuple[str, End]:
        """The whole case: accepted, disturbed, aged, and delivered until nothing more happens by itself."""
        effect_id = self.accept(subject)
        self.disturb(subject, effect_id, fault)
        self.perform(effect_id, subject)
        if hours:
            self.age(effect_id, hours)
        self.settle(effect_id, subject, hours_between=HOURS_BETWEEN_ROUNDS if hours else 0.0)
        return effect_id, self.end(effect_id, subject)

    def end(self, effect_id: str, subject: Subject) -> End:
        """How it stands, by our books and by the provider's own."""
        effect = self.books.effect(effect_id)
        duty = self.books.duty(effect_id)
        return End(
            state=effect["state"],
            done=self.done(effect_id, subject),
            reason=duty["parked_reason"] if duty else None,
            flagged=bool((effect["outcome"] or {}).get("possible_duplicate")),
        )

    def done(self, effect_id: str, subject: Subject) -> int:
        """How often the provider has it, by its own durable ledger."""
        if subject.kind == "email":
            letters = self.mail.admin("mailbox")["mail"]
            return sum(effect_id in str(x["idempotency_key"]) or effect_id in str(x["message_id"]) for x in letters)
        money = self.stripe.admin("ledger")["money"]
        if subject.kind == "capture":
            effect_id = str(self.books.effect(effect_id)["concerns"])
        return sum(row["metadata"].get("effect_id") == effect_id for row in money)
