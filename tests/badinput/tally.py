"""What one door did with its share: how many inputs, by what was wrong, and the first things that went wrong with us."""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from service.core.card import looks_like_card_number
from tests.badinput.nasty import PLANTED

FINDINGS_SHOWN = 20
TOLD_EVERY = 2_000


@dataclass
class Tally:
    """`findings`: what should not have been; empty when the door holds."""

    door: str
    inputs: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def played(self, how: str, count: int = 1) -> None:
        """So many more inputs of one way to be wrong; told on the way, since a million is half an hour."""
        before, self.inputs = self.inputs, self.inputs + count
        self.ways[how] += count
        if self.inputs // TOLD_EVERY > before // TOLD_EVERY and sys.__stderr__ is not None:
            # Not `sys.stderr`: a door may be listening to that one.
            print(f"\r{self.door}: {self.inputs:,} inputs", end="", file=sys.__stderr__, flush=True)

    def wrong(self, how: str, what: str) -> None:
        if len(self.findings) < FINDINGS_SHOWN:
            self.findings.append(f"{self.door}: {how}: {what[:400]}")

    def document(self) -> dict[str, Any]:
        return {"door": self.door, "inputs": self.inputs, "ways": dict(self.ways), "answers": dict(self.answers)}


def leak(text: str) -> str | None:
    """What of the planted stands in a text; None: nothing."""
    if PLANTED in text:
        return "the planted secret"
    # Only what is written like a card: hashes and times are full of digits.
    for run in re.findall(r"(?<![0-9A-Za-z.:-])(?:[0-9]{4}[ -]?){3}[0-9]{2,4}(?![0-9A-Za-z.:-])", text):
        if looks_like_card_number(run):
            return f"a card number ({run[:4]}…)"
    return None
