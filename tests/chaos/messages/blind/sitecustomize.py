"""Takes the look at messages out of a worker (on its PYTHONPATH): the corpus must do harm, or it proves nothing."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_CONSUMER = "service.broker.consumer"


class _Blinding(importlib.abc.MetaPathFinder):
    """Finds the consumer like everybody else, and blinds it once it has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _CONSUMER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec
        assert spec.loader
        execute = spec.loader.exec_module

        def blinded(module: ModuleType) -> None:
            execute(module)
            module._flaw = lambda _message: None  # type: ignore[attr-defined]
            module.plain_headers = lambda headers: headers  # type: ignore[attr-defined]

        spec.loader.exec_module = blinded  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Blinding())
