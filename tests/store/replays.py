"""A person's replay, whole: plan, start, and a relay that drives it."""

from __future__ import annotations

from service.core.operation import Selection, Verb
from service.engine import drive, operations


def replay(*ids: str, reason: str = "provider is back") -> list[str]:
    """The ids that were replayed, in the plan's order."""
    plan = operations.plan(Verb.REPLAY, Selection(ids=tuple(ids)), actor="ada", force=True)
    if not plan.eligible:
        return []
    operations.start(plan.id, reason=reason, actor="ada", door="cli")
    while operations.show(plan.id).waiting:  # another relay may have it in hand
        drive.run_once()
    return [item["effect_id"] for item in operations.items(plan.id) if item["result"] == "done"]
