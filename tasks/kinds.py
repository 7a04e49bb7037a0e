"""Every kind of effect by its wire name, for whoever meets an effect on the books and must know what it is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from service.core.errors import ValidationError
from service.engine.kind import Kind
from tasks.authorisations import cancel, capture
from tasks.effect_task import EffectTask
from tasks.mail import email
from tasks.payments import charge
from tasks.refunds import refund

_TASKS: Mapping[str, EffectTask] = {task.name: task for task in (charge, email, refund, capture, cancel)}

KINDS: Mapping[str, Kind] = MappingProxyType({name: task.kind for name, task in _TASKS.items()})
"""What the engine must know of each kind: its provider, and what its success causes."""


def task_of(kind: str) -> EffectTask:
    """The task whose calls are effects of this kind. Raises ValidationError naming the kinds there are."""
    task = _TASKS.get(kind)
    if task is None:
        raise ValidationError(f"{kind[:63]!r} is no kind of effect; there are {', '.join(_TASKS)}", field="kind")
    return task
