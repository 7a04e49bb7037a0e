"""What the engine must know of a kind of effect; `tasks` makes one for each task it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.core.effect import Attempt, Order
from service.core.outcome import Succeeded
from service.providers.ports import Provider


def no_follow_up(_: Attempt, __: Succeeded) -> list[Order]:
    """Most effects cause no other."""
    return []


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of effect: its wire name, its provider (built per process, on first use), and what its success causes."""

    name: str
    provider: Callable[[], Provider]
    follow_up: Callable[[Attempt, Succeeded], list[Order]] = no_follow_up


Money = tuple[int | None, str | None]
"""Minor units and lowercase ISO-4217 code, or two Nones for an effect that moves no money."""

RequestCheck = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Returns the frozen request. Raises ValidationError naming the field."""
