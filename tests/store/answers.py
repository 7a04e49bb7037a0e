"""Settlements as the engine makes them, for attempts the tests have claimed."""

from __future__ import annotations

from service.core.state import State
from service.store.attempts import Settlement


def final(attempt, state=State.SUCCEEDED, **changes) -> Settlement:
    about = {
        "id": attempt.id,
        "attempt": attempt.number,
        "state": state,
        "fact": state.value,
        "in_doubt": False,
        "outcome": {"charge": "ch_1"},
        "provider": "stripe",
        "provider_ref": f"pi_{attempt.id}" if state is State.SUCCEEDED else None,
    }
    return Settlement(**{**about, **changes})


def waiting(attempt, state=State.PENDING, fact="deferred", **changes) -> Settlement:
    about = {"in_doubt": state is State.UNKNOWN, "after_seconds": 30.0, "error": "rate_limited"}
    return Settlement(id=attempt.id, attempt=attempt.number, state=state, fact=fact, **{**about, **changes})


def parked(attempt, reason="echo_mismatch") -> Settlement:
    return Settlement(
        id=attempt.id,
        attempt=attempt.number,
        state=State.PARKED,
        fact="parked",
        in_doubt=True,
        parked_reason=reason,
        error=reason,
    )
