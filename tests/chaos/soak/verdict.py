"""What a round proved: the oracle's invariants, what each client was told, and sums that were known before it began."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tests.chaos.soak.installation import Installation
from tests.chaos.soak.wishes import Program, Wish
from tests.flow.oracle import Books

REFUSED = {"change": "422 dedupe_conflict", "roll back": "rolled back"}
CALLS_MEAN_MAX = 8.0
"""Requests to a provider for one effect, on the average of a round: an undisturbed charge needs two (I11)."""


@dataclass
class Verdict:
    """`wrong` is empty, or the round is red."""

    wrong: list[str]
    intents: int
    wishes: int
    unknown_answers: int
    moved: int
    """Minor units: taken less given back."""
    calls_mean: float
    facts: Counter[str] = field(default_factory=Counter)


def judge(house: Installation, seed: int) -> Verdict:
    """Everything is quiet; compare what is with what must be."""
    books = house.system.oracle.books()
    wrong = [*house.deaths, *house.system.oracle.violations(books)]
    asked: dict[str, Wish] = {}
    infos = wishes = 0
    for name in house.clients:
        history = house.history(name)
        infos += history.count("info")
        ends = history.ends()
        wishes += len(ends)
        mine = {wish.number: wish for wish in islice(Program(seed, name).wishes(), max(ends, default=-1) + 1)}
        for number, wish in mine.items():
            wrong += _told(name, wish, ends[number].type, ends[number].said)
            if ends[number].type == "ok":
                asked[ends[number].said] = mine[wish.upon] if wish.verb == "repeat" and wish.upon is not None else wish
    wrong += _became(books, asked)
    wrong += _with_their_orders(house, asked)
    calls = len(books.asked) / max(1, len(books.effects))
    if calls > CALLS_MEAN_MAX:
        wrong.append(f"I11 {calls:.1f} requests to providers for one effect on average")
    facts = Counter(fact["fact"] for facts in books.journal.values() for fact in facts)
    moved = sum(_signed(row) for row in books.money)
    return Verdict(wrong, len(books.effects), wishes, infos, moved, calls, facts)


def _told(name: str, wish: Wish, type_: str, said: str) -> Iterator[str]:
    """A key with another request is refused, what was rolled back was, and nothing else."""
    expected = REFUSED.get(wish.verb)
    if type_ != ("fail" if expected else "ok") or (expected and said != expected):
        yield f"I4 {name} wish {wish.number} ({wish.verb} by {wish.door}) was answered {type_}: {said}"


def _signed(row: dict[str, Any]) -> int:
    return -int(row["amount"]) if row["kind"] == "refund" else int(row["amount"])


def _became(books: Books, asked: dict[str, Wish]) -> Iterator[str]:
    """Each effect ended as its program says and moved what it says; the sums agree; nobody asked for the rest."""
    moved: dict[str, int] = defaultdict(int)
    for row in books.money:
        mark = row["metadata"].get("capture_effect_id" if row["kind"] == "capture" else "effect_id")
        moved[str(mark)] += _signed(row)
    for effect_id, wish in asked.items():
        effect = books.effects.get(effect_id)
        if effect is None or effect["dedupe_key"] != wish.key:
            yield f"I2 {effect_id} was acknowledged for {wish.key} and is {effect and effect['dedupe_key']}"
            continue
        if wish.ends and effect["state"] != wish.ends:
            yield f"I5 {wish.key} is {effect['state']} and must be {wish.ends}"
        if moved.get(effect_id, 0) != wish.moves:
            yield f"I1 {wish.key} moved {moved.get(effect_id, 0)} and must have moved {wish.moves}"
    if sum(moved.values()) != sum(wish.moves for wish in asked.values()):
        yield f"I1 {sum(moved.values())} moved in all, by the programs {sum(wish.moves for wish in asked.values())}"
    for effect_id, effect in books.effects.items():
        if effect_id not in asked and effect["caused_by"] is None:
            yield f"I3 {effect_id} ({effect['dedupe_key']}) was asked for by nobody who knows of it"


def _with_their_orders(house: Installation, asked: dict[str, Wish]) -> Iterator[str]:
    """I7: a caller's own row and its effect were committed together, or neither was."""
    orders = {str(row["key"]) for row in house.system.sql("select key from soak_orders")}
    effects = {str(row["dedupe_key"]) for row in house.system.sql("select dedupe_key from effects")}
    for key in sorted(orders - effects):
        yield f"I7 the order {key} was committed and its effect was not"
    for wish in asked.values():
        if wish.door == "python" and wish.verb not in REFUSED and wish.key not in orders:
            yield f"I7 the effect {wish.key} was committed and its order was not"
