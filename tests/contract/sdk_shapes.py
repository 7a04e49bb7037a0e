"""Whether a piece of JSON is what the installed stripe-python says it is: field by field, from its own annotations."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

import stripe

# Plain types as the SDK writes them; a JSON true is no number.
PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    type(None): (type(None),),
}


class _Names(dict[str, Any]):
    """The names a module of the SDK imports for type checkers only, looked up as they are needed."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._origins: dict[str, tuple[str, str]] = {}
        for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in node.names:
                    self._origins[name.asname or name.name] = (node.module, name.name)

    def __missing__(self, name: str) -> Any:
        if name not in self._origins:
            return getattr(stripe, name) if hasattr(stripe, name) else _raise(KeyError(name))
        module, original = self._origins[name]
        self[name] = getattr(importlib.import_module(module), original)
        return self[name]


def _raise(error: Exception) -> Any:
    raise error


@cache
def fields(cls: type) -> dict[str, Any]:
    """The declared fields of a class of the SDK, fully resolved."""
    hints = typing.get_type_hints(cls, localns=_Names(cls.__module__))
    return {
        name: hint
        for name, hint in hints.items()
        if name in cls.__annotations__ and not name.startswith("_") and typing.get_origin(hint) is not typing.ClassVar
    }


def faults(value: Any, hint: Any, where: str = "") -> list[str]:
    """All that is wrong with a value, each with its path; nothing when it has the right shape."""
    return list(_faults(value, hint, where or "object"))


def _faults(value: Any, hint: Any, where: str) -> Iterator[str]:
    origin = typing.get_origin(hint)
    if hint is Any:
        return
    if origin in (typing.Union, types.UnionType):
        yield from _union(value, typing.get_args(hint), where)
    elif origin is typing.Literal:
        if value not in typing.get_args(hint):
            yield f"{where}: {value!r} is not one of {typing.get_args(hint)[:8]}"
    elif origin in (list, stripe.ListObject):
        yield from _each(value, hint, where)
    elif origin is dict or (inspect.isclass(origin) and issubclass(origin, stripe.StripeObject)):
        yield from _mapping(value, typing.get_args(hint)[-1], where)
    elif hint in PLAIN:
        if type(value) not in PLAIN[hint]:
            yield f"{where}: {value!r} is not {hint.__name__}"
    elif inspect.isclass(hint) and issubclass(hint, stripe.StripeObject):
        yield from _object(value, hint, where)
    else:
        yield f"{where}: cannot check {hint!r}"


def _union(value: Any, arms: tuple[Any, ...], where: str) -> Iterator[str]:
    # `Union[Literal[…], str]` leaves room for values of later API versions; the fake speaks this one.
    if any(typing.get_origin(arm) is typing.Literal for arm in arms):
        arms = tuple(arm for arm in arms if arm is not str)
    attempts = [faults(value, arm, where) for arm in arms]
    if all(attempts):
        # An object's own arm says most about it; an id or a number has only short complaints.
        named = [each for arm, each in zip(arms, attempts, strict=True) if _is_kind(value, arm)]
        yield from named[0] if named else min(attempts, key=len)


def _is_kind(value: Any, arm: Any) -> bool:
    if not isinstance(value, dict) or not inspect.isclass(arm):
        return False
    return getattr(arm, "OBJECT_NAME", None) in (None, value.get("object")) and issubclass(arm, stripe.StripeObject)


def _each(value: Any, hint: Any, where: str) -> Iterator[str]:
    if typing.get_origin(hint) is stripe.ListObject:
        if not isinstance(value, dict) or value.get("object") != "list":
            yield f"{where}: {value!r} is not a list object"
            return
        yield from _object({name: each for name, each in value.items() if name != "object"}, stripe.ListObject, where)
        value = value["data"]
    if not isinstance(value, list):
        yield f"{where}: {value!r} is not a list"
        return
    for index, each in enumerate(value):
        yield from _faults(each, typing.get_args(hint)[0], f"{where}[{index}]")


def _mapping(value: Any, of: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is not a hash"
        return
    for name, each in value.items():
        yield from _faults(each, of, f"{where}.{name}")


def _object(value: Any, cls: type, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is not a {cls.__name__}"
        return
    declared = fields(cls)
    for name in sorted(set(value) - set(declared)):
        if declared:
            yield f"{where}.{name}: {cls.__name__} has no such field"
    for name, hint in declared.items():
        if cls is stripe.ListObject and name == "data":
            continue
        if name in value:
            yield from _faults(value[name], hint, f"{where}.{name}")
        elif type(None) not in typing.get_args(hint):
            yield f"{where}.{name}: is always present in a {cls.__name__}"
