"""The score: counted at the provider's own ledger and in the mailbox, against what the callers asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Score:
    """One run. `requested` are distinct charges asked for; each is charged once, declined, doubled or lost."""

    mode: str
    requested: int
    sent: int
    """Requests that the callers made, repeats with the same key included."""
    charged_once: int
    charged_twice: int
    lost: int
    declined: int
    emails: int
    emails_doubled: int
    emails_missing: int
    redeliveries_absorbed: int
    blows: int
    wrong_amount: int = 0
    unfinished: int = 0
    seed: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether the promise held."""
        broken = (
            self.charged_twice + self.lost + self.wrong_amount + self.unfinished
            + self.emails_doubled + self.emails_missing
        )  # fmt: skip
        return broken == 0 and self.charged_once + self.declined == self.requested

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "held": self.held}


@dataclass(frozen=True)
class Asked:
    """One charge a caller asked for: its order number, the amount, and whether its card is one that declines."""

    order: str
    amount: int
    declines: bool

    @property
    def address(self) -> str:
        """Where its receipt goes: one address an order, so that the mailbox can be counted."""
        return f"order-{self.order}@example.test"


def count_money(asked: Sequence[Asked], money: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Compare the ledger's rows of moved money with what was asked for, by the order number in their metadata."""
    moved = Counter(_order(row) for row in money)
    amounts = {(_order(row), int(row["amount"])) for row in money}
    wanted = [a for a in asked if not a.declines]
    return {
        "charged_once": sum(moved[a.order] == 1 for a in wanted),
        "charged_twice": sum(count > 1 for count in moved.values()),
        "lost": sum(moved[a.order] == 0 for a in wanted),
        "declined": sum(a.declines and moved[a.order] == 0 for a in asked),
        "wrong_amount": sum(moved[a.order] > 0 and (a.order, a.amount) not in amounts for a in wanted)
        + sum(moved[a.order] > 0 for a in asked if a.declines),
    }


def count_mail(asked: Sequence[Asked], mailbox: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Compare the mailbox with the receipts that are due: one for each charge that is to succeed."""
    copies = Counter(str(letter["recipient"]) for letter in mailbox)
    wanted = [a.address for a in asked if not a.declines]
    return {
        "emails": sum(copies.values()),
        "emails_doubled": sum(count > 1 for count in copies.values()),
        "emails_missing": sum(copies[address] == 0 for address in wanted),
    }


def _order(row: Mapping[str, Any]) -> str:
    return str(row["metadata"].get("order"))
