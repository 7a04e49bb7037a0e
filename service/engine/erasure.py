"""Erase: take what one person's effects say of him, before its time; what was done, and under which key, stays.

Personal data stands in one column (ADR 20), so an erasure is one statement a batch: the requests of settled effects go,
and with each a fact tells when, why and by whom, without what. What is not settled is refused: its request is the only
thing that can still be sent, so it is settled first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.core.errors import ValidationError
from service.store import retention
from service.store.database import transaction

BATCH = 500
SCAN_BATCH = 20_000  # looked through in one statement: a recipient stands in no index, which would be a second place
IDS_MAX = 10_000
REASON_LENGTH_MAX = 500
_NO_ID = "00000000-0000-0000-0000-000000000000"

WAY_OUT = (
    "settle it first (counterfoil effects verify, or resolve), or let it end by itself, and erase it then: "
    "until it is settled its request is what may still have to be sent"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an erasure would take. `unsettled` is refused; `quoting`: so many have facts by people, which stay."""

    ids: tuple[str, ...]
    unsettled: tuple[str, ...]
    erased_before: tuple[str, ...]
    unknown: tuple[str, ...]
    quoting: int


def plan(
    ids: Sequence[str] = (),
    *,
    to: str | None = None,
    tenant: str | None = None,
    progress: Callable[[str, int], None] = lambda *_: None,
) -> Plan:
    """What is named by id or written to an address, with the receipts it caused. Writes nothing.

    Raises ValidationError: neither or both are given, or too many; DependencyUnavailable.
    """
    if bool(ids) == bool(to):
        raise ValidationError("say either which effects (--id) or whose (--to)", field="id")
    if len(ids) > IDS_MAX:
        raise ValidationError(f"at most {IDS_MAX} ids at once", field="id")
    asked = list(ids) or _written_to(str(to).strip(), tenant, progress)
    with transaction() as connection:
        rows = retention.standing(connection, asked, tenant=tenant)
        found = tuple(row["id"] for row in rows if row["settled"] and not row["erased"])
        quoting = retention.quoting(connection, [row["id"] for row in rows], str(to).strip()) if to else 0
    there = {row["id"] for row in rows}
    return Plan(
        found,
        tuple(row["id"] for row in rows if not row["settled"]),
        tuple(row["id"] for row in rows if row["settled"] and row["erased"]),
        tuple(one for one in asked if one not in there),
        quoting,
    )


def erase(ids: Sequence[str], *, reason: str, actor: str, to: str | None = None) -> tuple[str, ...]:
    """Erase what a plan found; those that were. Safe to repeat. `to` may not stand in the reason, which is kept.

    Raises ValidationError; DependencyUnavailable.
    """
    words = reason.strip()
    if not words or len(words) > REASON_LENGTH_MAX:
        raise ValidationError(
            f"an erasure needs a reason of {REASON_LENGTH_MAX} characters at most; it is kept in the journal",
            field="reason",
        )
    if "@" in words or (to and to.strip().lower() in words.lower()):
        raise ValidationError("name no address in the reason: the journal is never erased", field="reason")
    done: list[str] = []
    for start in range(0, len(ids), BATCH):
        with transaction() as connection:
            done += retention.erase(connection, ids[start : start + BATCH], actor=actor, reason=words)
    return tuple(done)


def _written_to(address: str, tenant: str | None, progress: Callable[[str, int], None]) -> list[str]:
    if "@" not in address:
        raise ValidationError("--to is one e-mail address", field="to")
    found: list[str] = []
    after: str | None = _NO_ID
    looked = 0
    while after:
        with transaction() as connection:
            after, some = retention.written_to(connection, address, tenant=tenant, after=after, batch=SCAN_BATCH)
        found += some
        looked += SCAN_BATCH
        progress("effects", looked)
    return found
