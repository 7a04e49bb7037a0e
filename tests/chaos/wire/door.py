"""An API whose connections to Postgres pass a proxy, and a client that repeats its key until it has an answer.

What the client was told is true, whatever became of the wire: one effect for each key, the same in every answer (I4).
IETF draft "The Idempotency-Key HTTP Header Field"; RFC 9110, section 9.2.2.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from urllib.parse import urlsplit

from tests.chaos.points.doors import CHARGE, Client, Line
from tests.chaos.wire.loop import Loop

_keys = count(1)


class Front:
    """Makes the house's effects come through the API. `found` counts what a client met."""

    def __init__(self, house: Loop) -> None:
        self.found: Counter[str] = Counter()
        self._system = house.system
        self._link = house.links["api-postgres"]
        api = self._system.start("api", ["service", "api", "--port", "0"], **house.addresses("api"))
        self._system.until(lambda: api.lines("listening"), "the API listens")
        self._client = Client(urlsplit(str(api.lines("listening")[0]["url"])).port or 0)
        house.accept = self.accept

    def accept(self) -> str:
        """One charge; its id, once the client knows it."""
        key = f"wire-door:{next(_keys)}"
        first = self._ask(key)
        answer = first
        if first.outcome == "unknown":
            watch = self._link.watch
            self._system.until(lambda: watch.over or not watch.fired, "the link is whole again")
            done = bool(self._rows(key))
            self._system.until(lambda: self._ask(key).outcome != "unknown", f"{key} is answered")
            answer = self._client.history[-1]
            self.found["accepted unknown to the client" if done else "nothing accepted"] += 1
            assert answer.replayed or not done, f"{key} had been accepted, and the answer is {answer}"
        assert answer.outcome == "ok", f"{key} was answered {answer} after {first}"
        return answer.effect_id

    def once(self) -> None:
        """The client's history against the database: one effect for each key, and it is the one that was named."""
        for key in {line.key for line in self._client.history}:
            told = {line.effect_id for line in self._client.history if line.key == key and line.effect_id}
            assert told == set(self._rows(key)), f"{key}: told {told}, there are {self._rows(key)}"
            made = [line for line in self._client.history if line.key == key and line.effect_id and not line.replayed]
            assert len(made) <= 1, f"{key} was made more than once: {made}"

    def _ask(self, key: str) -> Line:
        return self._client.ask("/v1/charges", key, CHARGE)

    def _rows(self, key: str) -> list[str]:
        return [row["id"] for row in self._system.sql("select id::text from effects where dedupe_key = %s", key)]
