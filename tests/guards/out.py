"""Takes guards out of the modules of this process for a moment: the same removals that processes of `tests.flow` get."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_CONTROLS = Path(__file__).resolve().parents[1] / "flow" / "controls"


@cache
def controls() -> Mapping[str, tuple[str, Any]]:
    """Every control a program can be started with: its module, and what takes the guard out of it."""
    sys.path.insert(0, str(_CONTROLS))
    try:
        # By its path: the interpreter has imported a `sitecustomize` of its own long ago.
        spec = importlib.util.spec_from_file_location("counterfoil_controls", _CONTROLS / "sitecustomize.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(_CONTROLS))
    found: Mapping[str, tuple[str, Any]] = module._CONTROLS
    return found


@contextmanager
def taken_out(*names: str) -> Iterator[None]:
    """Without these guards; as it was afterwards, whatever happens."""
    removals = [controls()[name] for name in names]
    modules = {name: importlib.import_module(name) for name, _ in removals}
    before = {id(thing): (thing, dict(vars(thing))) for module in modules.values() for thing in _things(module)}
    try:
        for name, patch in removals:
            patch(modules[name])
        yield
    finally:
        for thing, kept in before.values():
            _put_back(thing, kept)


def _things(module: ModuleType) -> list[Any]:
    classes = [
        thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__.startswith("service")
    ]
    return [module, *classes]


def _put_back(thing: Any, kept: dict[str, Any]) -> None:
    for name, value in list(vars(thing).items()):
        if name not in kept:
            delattr(thing, name)
        elif value is not kept[name]:
            setattr(thing, name, kept[name])
