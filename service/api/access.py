"""Who calls. Without keys the API listens on loopback only, and whoever reaches it is the tenant `default`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.effect_task import DEFAULT_TENANT

SCOPES = frozenset(
    {"charges:write", "refunds:write", "emails:write", "effects:read", "operations:read", "operations:write"}
)


@dataclass(frozen=True, slots=True)
class Caller:
    """`actor` stands in journals, `tenant` is whose effects are seen, `scopes` say what may be done."""

    actor: str
    tenant: str
    scopes: frozenset[str]


def require(scope: str | None) -> Callable[[], Caller]:
    """A dependency: the caller, who must have this scope (None: any key will do)."""

    def caller() -> Caller:
        found = Caller("loopback", DEFAULT_TENANT, SCOPES)
        assert scope is None or scope in found.scopes  # noqa: S101 - all of them
        return found

    return caller
