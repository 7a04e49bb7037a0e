"""Providers and a publisher that do what a test tells them: real objects behind the ports, no mocks of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.broker.messages import Message
from service.core.effect import Attempt, Guarantee, Lease
from service.core.errors import DependencyUnavailable
from service.core.outcome import Outcome, Succeeded

Step = Callable[[Attempt, Lease], Outcome]


def succeed(attempt: Attempt, lease: Lease) -> Outcome:
    """Guard, then the provider has it."""
    lease.guard(horizon_seconds=72_000)
    return Succeeded(f"pi_{attempt.id}", {"charge": "ch_1"}, {"status": 200})


@dataclass
class ScriptedProvider:
    """Performs by `steps[dedupe_key]`, else `usual`; remembers every attempt it saw."""

    usual: Step = succeed
    steps: Mapping[str, Step] = field(default_factory=dict)
    name: str = "stripe"
    guarantee: Guarantee = Guarantee.KEYED
    seen: list[Attempt] = field(default_factory=list)

    def perform(self, attempt: Attempt, lease: Lease) -> Outcome:
        self.seen.append(attempt)
        return self.steps.get(attempt.dedupe_key, self.usual)(attempt, lease)


class RecordingPublisher:
    """A broker in memory; while `away` is set it takes nothing and says so."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.away = threading.Event()
        self.pings = 0

    def publish(self, messages: Sequence[Message]) -> None:
        self._answer()
        self.messages += messages

    def ping(self) -> None:
        self.pings += 1
        self._answer()

    def _answer(self) -> None:
        if self.away.is_set():
            raise DependencyUnavailable("the broker does not answer: connection refused")

    @property
    def ids(self) -> list[str]:
        return [effect_id for message in self.messages for effect_id in message.effect_ids]
