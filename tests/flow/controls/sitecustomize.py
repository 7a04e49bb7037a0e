"""Takes one guard out of a program started by a test (on its PYTHONPATH): the oracle must notice, or it proves nothing.

`COUNTERFOIL_TEST_CONTROL` names the guard, or several with commas where one covers for another. A patch is applied
when its module is imported; the product has no switch for any of this.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from removals import REMOVALS


def _random_key(module: ModuleType) -> None:
    """I6: another idempotency key for each try."""
    module.step_key = lambda effect_id, step: f"{effect_id}-{uuid.uuid4().hex}:{step}"  # type: ignore[attr-defined]


def _no_fence(module: ModuleType) -> None:
    """I9: whoever settles is believed, whichever attempt it was."""
    guarded = str(module._SETTLE).replace("returning e.id, e.attempt", "returning e.id, i.attempt")
    condition = guarded[guarded.index("from input i where e.id = i.id and e.attempt") : guarded.index("returning e.id")]
    open_door = "from input i where e.id = i.id and e.settled_at is null\n    "
    module._SETTLE = module.text(guarded.replace(condition, open_door))


def _delete_on_publish(module: ModuleType) -> None:
    """I7: an outbox row that is gone when it is published, as in most outboxes."""
    take = module.take

    def take_and_forget(connection: Any, batch: int, redelivery: float) -> Any:
        due = take(connection, batch, redelivery)
        ids = [row.effect_id for row in due]
        connection.execute(module.text("delete from outbox where effect_id = any(cast(:ids as uuid[]))"), {"ids": ids})
        return due

    module.take = take_and_forget  # type: ignore[attr-defined]


def _no_recovery_point(module: ModuleType) -> None:
    """W11: forget the PaymentIntent, and with a new key for each try make another one."""
    _random_key(module)
    noted = module.StripeAttempt.noted
    module.StripeAttempt.noted = lambda self, name: None if name == "payment_intent" else noted(self, name)


def _no_gate(module: ModuleType) -> None:
    """Whatever the database says of its life, it may send."""
    standing = module.Standing
    module.look = lambda *_: standing(open=True)  # type: ignore[attr-defined]
    for name in ("GATE", "LIFE"):
        gate = str(getattr(module, name))
        assert " is true as open" in gate
        setattr(module, name, gate.replace(" is true as open", " is not null or true as open"))


_CONTROLS: dict[str, tuple[str, Callable[[ModuleType], None]]] = {
    "random_key": ("service.providers.stripe.attempt", _random_key),
    "no_fence": ("service.store.attempts", _no_fence),
    "delete_on_publish": ("service.store.outbox", _delete_on_publish),
    "no_gate": ("service.store.incarnation", _no_gate),
    "no_recovery_point": ("service.providers.stripe.attempt", _no_recovery_point),
    **REMOVALS,
}


class _Patching(importlib.abc.MetaPathFinder):
    """Finds the one module like everybody else, and patches it once it has run."""

    def __init__(self, name: str, patches: Sequence[Callable[[ModuleType], None]]) -> None:
        self._name = name
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec
        assert spec.loader
        execute = spec.loader.exec_module

        def patched(module: ModuleType) -> None:
            execute(module)
            for patch in self._patches:
                patch(module)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


_wanted: dict[str, list[Callable[[ModuleType], None]]] = {}
for control in filter(None, os.environ.get("COUNTERFOIL_TEST_CONTROL", "").split(",")):
    _wanted.setdefault(_CONTROLS[control][0], []).append(_CONTROLS[control][1])
sys.meta_path[:0] = [_Patching(name, patches) for name, patches in _wanted.items()]
