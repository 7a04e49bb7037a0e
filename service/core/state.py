"""The state machine of an effect: one table, compared by tests with the database's own checks and with the docs."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an effect stands. `succeeded` and `failed` are final; nothing leaves them."""

    PENDING = "pending"
    """Accepted; provably not done at the provider unless the effect is `in_doubt`."""
    EXECUTING = "executing"
    """One attempt holds the lease and may be talking to the provider."""
    AWAITING = "awaiting"
    """The provider took it and will answer later (processing, authentication by the customer)."""
    UNKNOWN = "unknown"
    """A request may have gone out and no answer was recorded. Never re-sent under a new key."""
    PARKED = "parked"
    """Waits for a person: budget spent, contradiction, or blind and unknown."""
    SUCCEEDED = "succeeded"
    """The provider has it."""
    FAILED = "failed"
    """The provider does not have it, and never will under this effect."""


FINAL = frozenset({State.SUCCEEDED, State.FAILED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.EXECUTING, State.PARKED}),
    State.EXECUTING: frozenset(
        {State.SUCCEEDED, State.FAILED, State.AWAITING, State.PENDING, State.UNKNOWN, State.PARKED}
    ),
    State.AWAITING: frozenset({State.EXECUTING, State.SUCCEEDED, State.FAILED, State.PARKED}),
    State.UNKNOWN: frozenset(
        {State.EXECUTING, State.SUCCEEDED, State.FAILED, State.AWAITING, State.PENDING, State.PARKED}
    ),
    State.PARKED: frozenset({State.PENDING, State.SUCCEEDED, State.FAILED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
}
"""Every legal move. `executing → executing` is missing on purpose: a lost lease passes through `unknown`."""


def mermaid() -> str:
    """Render the table as the Mermaid diagram of docs/architecture.md (a test keeps the two equal)."""
    lines = ["stateDiagram-v2", "    [*] --> pending"]
    lines += [f"    {a} --> {b}" for a, targets in TRANSITIONS.items() for b in sorted(targets)]
    lines += [f"    {state} --> [*]" for state in sorted(FINAL)]
    return "\n".join(lines)
