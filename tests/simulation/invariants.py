"""The promises, checked against the provider's own books when a seed is at rest (those of each step are checked there)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.decisions import FINAL
from tests.simulation.database import Broken, Row

if TYPE_CHECKING:
    from tests.simulation.world import World


def at_rest(w: World) -> None:
    """Raises Broken."""
    for row in w.database.rows.values():
        _settled(w, row)
        _true(w, row)
    for row in w.database.rows.values():
        if row.kind == "charge" and row.receipt and row.state == "succeeded" and not _caused(w, row):
            raise Broken(f"a receipt is missing: {row.id} succeeded and caused nothing")
    _known(w)
    if w.books.second_key:
        raise Broken("I6 a step was sent under two keys")


def _settled(w: World, row: Row) -> None:
    """I2, I7, I10: final, or visibly waiting for somebody who is named."""
    if (row.road == "gone") != (row.state in FINAL):
        raise Broken(f"I7 {row.id} is {row.state} and its outbox row is {row.road}")
    if rests(w, row):
        return
    raise Broken(f"I10 {row.id} is {row.state} {row.parked_reason or ''} when all is over")


def rests(w: World, row: Row) -> bool:
    """Whether nothing but a person, or the customer's bank, will move it."""
    state = row.state
    if state in FINAL or state == "parked":
        return True
    if state == "awaiting":
        held = w.books.intents.get(row.provider_ref or "")
        known = (row.outcome or {}).get("status") == "requires_capture"
        return known and held is not None and held["status"] == "requires_capture"
    if state == "pending" and row.concerns is not None:
        charge = w.database.rows[row.concerns]
        return charge.state not in FINAL and not w.database.ready(row) and rests(w, charge)
    return False


def _caused(w: World, row: Row) -> bool:
    return any(other.caused_by == row.id for other in w.database.rows.values())


def _known(w: World) -> None:
    """I3: whatever has moved money belongs to an effect, or to an orphan that somebody is told of."""
    if not w.database.lives:
        return
    for ref, thing in (*w.books.intents.items(), *w.books.refunds.items()):
        effect = thing["metadata"]["effect_id"]
        known = effect in w.database.rows or effect in w.books.late or ref in w.database.orphans
        if thing["status"] == "succeeded" and not known:
            raise Broken(f"I3 {ref} stands at the provider and nobody knows of it")


def _true(w: World, row: Row) -> None:
    """I5: what stands in our books is so at the provider."""
    moved = w.books.moved[row.id]
    if row.state == "succeeded" and not w.books.done[row.dedupe_key]:
        raise Broken(f"I5 {row.id} is succeeded and was never done")
    if row.state == "succeeded" and row.kind in ("charge", "refund") and _amount(w, row) != row.request["amount"]:
        raise Broken(f"I4 {row.id} is succeeded with {row.provider_ref}, which was made for another request")
    if row.state == "failed" and moved:
        raise Broken(f"I5 {row.id} is failed and was done")
    if row.booked > 1:
        raise Broken(f"{row.id} was booked {row.booked} times")
    if row.state == "parked" and row.parked_reason == "absent" and moved and not row.released:
        raise Broken(f"{row.id} is parked as absent and was done")
    flagged = (row.outcome or {}).get("possible_duplicate") or (row.outcome or {}).get("resolved")
    if row.state == "succeeded" and moved > 1 and not flagged and row.dedupe_key not in w.books.spared:
        raise Broken(f"{row.id} may be a duplicate and does not say so")


def _amount(w: World, row: Row) -> int:
    """What the object is made for that a charge or a refund names as its own; a person may have named one by hand."""
    ref = row.provider_ref or ""
    found = w.books.intents.get(ref) or w.books.refunds.get(ref) or row.request
    return int(found["amount"])
