"""Checks of what waits: overdue by its cause, in doubt, parked, unpaired, held by somebody, driven by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.cli.checks.check import Check
from service.engine import lanes, operations
from service.settings import Settings
from service.store import causes, circuits, health, outbox
from service.store.database import statement

# Longer than the slowest look of a relay at a quiet outbox, so that a healthy one is never called late.
LATE_SECONDS = 30.0
# An operation is looked after four times a second by any relay that runs.
UNATTENDED_SECONDS = 30.0
# After this the same key is not sent any more (Stripe keeps a key for 24 hours: Idempotent requests).
KEY_WINDOW_SECONDS = 20 * 3600.0


def _stats() -> dict[str, Any]:
    with statement() as connection:
        return outbox.stats(connection)


def published() -> Check:
    """What is due is published."""
    oldest = _stats()["oldest_unpublished_seconds"] or 0.0
    return Check(
        "outbox",
        ok=oldest <= LATE_SECONDS,
        found=f"oldest due and unpublished effect: {oldest:.0f} s" if oldest else "nothing is waiting to be published",
        meaning="No relay is publishing: none runs, the broker is away, or the window is full because no worker runs.",
        fix="counterfoil relay, counterfoil worker; then look at their logs",
    )


def overdue(settings: Settings) -> Iterator[Check]:
    """What was handed on and comes to nothing: whose turn it is."""
    with statement() as connection:
        found = {row["cause"]: row for row in causes.of(connection)}
    # A message in hand may take a redelivery's time; what is older was published again and still came to nothing.
    patience = 2 * settings.redelivery + LATE_SECONDS
    meanings = {
        "published and not picked up": (
            "No worker serves the lane, or none runs.",
            "counterfoil lanes list; start workers with -Q",
        ),
        "started and not finished": (
            "Workers hang or die within attempts.",
            "look at the workers' logs: a provider, memory, a time limit",
        ),
    }
    for cause, (meaning, fix) in meanings.items():
        row = found.get(cause)
        age = (row["oldest_seconds"] or 0.0) if row else 0.0
        yield Check(
            cause,
            ok=age <= patience,
            found=f"{row['count']}, the oldest for {age:.0f} s: {row['oldest']}" if row else "none",
            meaning=meaning,
            fix=fix,
        )


def unknown() -> Check:
    """No outcome is in doubt."""
    count = int(_stats()["unknown"])
    return Check(
        "unknown",
        ok=count == 0,
        found=f"{count} effects with an unknown outcome",
        meaning="They may or may not have happened; each is asked after by itself with the same key.",
        fix="counterfoil effects list --state unknown",
    )


def key_window() -> Check:
    """Doubts whose key the provider may have forgotten are only looked up from then on."""
    oldest = float(_stats()["oldest_unknown_seconds"] or 0.0)
    return Check(
        "key window",
        ok=oldest < KEY_WINDOW_SECONDS,
        found=f"the oldest doubt is {oldest / 3600:.1f} h old" if oldest else "no doubt is open",
        meaning="Its key may be forgotten, so nothing is sent any more: only look-ups, webhooks or a person end it.",
        fix="counterfoil effects verify --state unknown; then docs/runbook.md, effects_unknown",
    )


def parked() -> Check:
    """Nothing waits for a person."""
    count = int(_stats()["parked"])
    return Check(
        "parked",
        ok=count == 0,
        found=f"{count} parked effects",
        meaning="They wait for a person and will not go on by themselves.",
        fix="counterfoil outbox list --state parked; then counterfoil outbox replay",
    )


def pairs() -> Check:
    """Every unsettled effect has its row, and no settled one (I7)."""
    with statement() as connection:
        without_outbox, without_effect = health.unpaired(connection)
    return Check(
        "pairs",
        ok=without_outbox == without_effect == 0,
        found=f"{without_outbox} unsettled effects without an outbox row, {without_effect} settled ones with one",
        meaning="Invariant I7 is broken: somebody changed rows by hand, or restored a part of a backup.",
        fix="stop writing to these tables by hand; report it with the journal of one such effect",
    )


def paused() -> Check:
    """A lane that somebody has paused and forgotten."""
    held = [lane for lane in lanes.listed() if lane.paused_at]
    said = "; ".join(f"{lane.name} by {lane.paused_by}: {lane.pause_reason} ({lane.held} held)" for lane in held)
    return Check(
        "lanes",
        ok=not held,
        found=said or "none is paused",
        meaning="Nothing of a paused lane is published, whatever comes due.",
        fix="counterfoil lanes resume LANE",
    )


def unattended() -> Check:
    """A running operation that no relay looks after."""
    alone = [one for one in operations.listed(state="running") if (one.unattended_seconds or 0.0) > UNATTENDED_SECONDS]
    return Check(
        "operations",
        ok=not alone,
        found=", ".join(f"{one.verb} {one.id} stands still" for one in alone) or "none stands still",
        meaning="Operations are carried out by the relay, and none does.",
        fix="counterfoil relay; then counterfoil ops watch ID",
    )


def closed_circuits() -> Check:
    """Providers that fail again and again: nothing is claimed for them until a probe succeeds."""
    with statement() as connection:
        standing = [circuit for circuit in circuits.standing(connection) if circuit.open_seconds is not None]
    said = "; ".join(f"{c.provider} for {c.open_seconds:.0f} s: {c.last_error}" for c in standing)
    return Check(
        "providers",
        ok=not standing,
        found=said or "no circuit is open",
        meaning="The provider fails: effects wait untouched, one probe at a time asks whether it is back.",
        fix="look at the provider's status page; it goes on by itself",
    )
