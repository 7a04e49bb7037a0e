"""A charge that has been made, held or declined at the fake, for the tests of what acts upon it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.core.effect import Attempt, Concerned
from service.core.outcome import Awaiting, Outcome, Succeeded
from service.core.state import State
from service.providers.stripe.api import StripeApi
from service.providers.stripe.charges import StripeCharges
from tests.contract.fake_servers import FakeServer
from tests.contract.leases import KeptLease, attempt

HOUR = 3600.0


def a_charge(**more: Any) -> Attempt:
    """A first attempt at an effect nobody else uses: the ledger is never emptied."""
    request = {"amount": 4200, "currency": "eur", "customer": "cus_1", "payment_method": "pm_card_visa", **more}
    return attempt(str(uuid.uuid4()), request)


def api(fake: FakeServer) -> StripeApi:
    return StripeApi("sk_test_1", fake.address["url"])


def charges(fake: FakeServer) -> StripeCharges:
    return StripeCharges(api(fake), livemode=False, deadline_seconds=10.0)


def paid(fake: FakeServer, **more: Any) -> Concerned:
    """A charge that has taken the money."""
    charge = a_charge(**more)
    outcome = charges(fake).perform(charge, KeptLease())
    assert isinstance(outcome, Succeeded)
    return Concerned(charge.id, State.SUCCEEDED, outcome.ref)


def held(fake: FakeServer, **more: Any) -> tuple[Attempt, Concerned]:
    """A charge that has reserved the money, and its attempt as the next one would find it."""
    charge, lease = a_charge(capture_method="manual", **more), KeptLease()
    outcome = charges(fake).perform(charge, lease)
    assert isinstance(outcome, Awaiting)
    assert outcome.ref
    waiting = replace(charge, number=2, prior=State.AWAITING, progress=lease.records[0])
    return waiting, Concerned(charge.id, State.AWAITING, outcome.ref)


def upon(charge: Concerned, kind: str, request: Mapping[str, Any], **more: Any) -> Attempt:
    """A first attempt at an effect that acts upon a charge."""
    asked = {"charge": charge.id, **request}
    return attempt(str(uuid.uuid4()), asked, kind=kind, concerned=charge, **more)


def moved(fake: FakeServer, effect: str, kind: str) -> list[dict[str, Any]]:
    """What the ledger says of one effect: rows of one kind with its mark."""
    rows = fake.admin("ledger")["money"]
    return [row for row in rows if row["kind"] == kind and effect in row["metadata"].values()]


def sent(fake: FakeServer, key: str) -> list[dict[str, Any]]:
    return list(fake.admin(f"requests?key={key}")["requests"])


def word(outcome: Outcome) -> str:
    """Reason or code, whichever it has."""
    return str(getattr(outcome, "reason", None) or getattr(outcome, "code", ""))
