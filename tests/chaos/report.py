"""Adds up the book of a chaos run and compares it with what a whole run owes: a layer that did too little fails.

`OWED` is the list of it. A whole run that is green in every test and short of a number here has proven less than we say.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# layer -> counter -> at least so many in a whole run.
OWED: dict[str, dict[str, int]] = {
    "crash points": {"points": 1_800},
    "crash pairs": {"pairs": 3_000},
    "pause points": {"points": 200},
    "wire points": {"points": 500},
    "server faults": {"intents": 200},
    "message faults": {"points": 400},
    "pools": {"intents": 100},
    "simulation": {"seeds": 1_000_000},
    "guards": {"points": 36},
    "soak": {"intents": 1_000, "kills": 20},
}
BOTH_BROKERS = ("crash points", "wire points", "message faults", "pools", "soak")
SHOWN = ("points", "pairs", "seeds", "pauses", "kills", "intents", "violations")


@dataclass
class Layer:
    """What one layer did."""

    counts: Counter[str] = field(default_factory=Counter)
    brokers: set[str] = field(default_factory=set)
    subjects: int = 0

    def kinds(self, prefix: str) -> dict[str, int]:
        """`fault_…` or `branch_…` counts, without the prefix."""
        return {name[len(prefix) :]: n for name, n in sorted(self.counts.items()) if name.startswith(prefix)}


def read(book: Path) -> dict[str, Layer]:
    """The layers of a book; empty if nobody wrote."""
    layers: dict[str, Layer] = defaultdict(Layer)
    for line in book.read_text(encoding="utf-8").splitlines() if book.exists() else ():
        entry = json.loads(line)
        layer = layers[entry["layer"]]
        layer.counts.update(entry["counts"])
        layer.brokers |= {entry["broker"]} - {""}
        layer.subjects += 1
    return dict(layers)


def short_of(layers: Mapping[str, Layer]) -> list[str]:
    """What a whole run owes and this one has not shown; violations, wherever they were."""
    missing = [
        f"{name}: {layers[name].counts[counter] if name in layers else 0:,} {counter}, owed {least:,}"
        for name, counters in OWED.items()
        for counter, least in counters.items()
        if (layers[name].counts[counter] if name in layers else 0) < least
    ]
    missing += [
        f"{name}: only on {', '.join(sorted(layers[name].brokers)) or 'no broker'}"
        for name in BOTH_BROKERS
        if name in layers and not {"valkey", "rabbitmq"} <= layers[name].brokers
    ]
    missing += [
        f"{name}: {kind} never came"
        for name, layer in layers.items()
        for kind, n in layer.kinds("fault_").items()
        if not n
    ]
    return missing + [
        f"{name}: {layer.counts['violations']} violations"
        for name, layer in layers.items()
        if layer.counts["violations"]
    ]


def table(layers: Mapping[str, Layer]) -> str:
    """For people: a line a layer, then the faults of each."""
    width = max([len(name) for name in layers], default=5)
    lines = [f"{'layer':{width}}  " + "  ".join(f"{name:>10}" for name in SHOWN) + "  brokers"]
    for name, layer in sorted(layers.items()):
        cells = "  ".join(f"{layer.counts[one]:>10,}" if layer.counts[one] else f"{'':>10}" for one in SHOWN)
        lines.append(f"{name:{width}}  {cells}  {', '.join(sorted(layer.brokers))}")
    for name, layer in sorted(layers.items()):
        for prefix, word in (("fault_", "faults"), ("branch_", "recovery branches")):
            if kinds := layer.kinds(prefix):
                lines.append(f"\n{name}, {word}: " + ", ".join(f"{kind} {n:,}" for kind, n in kinds.items()))
    return "\n".join(lines)


def document(layers: Mapping[str, Layer]) -> dict[str, Any]:
    """The same for machines."""
    return {
        name: {"counts": dict(layer.counts), "brokers": sorted(layer.brokers), "lines": layer.subjects}
        for name, layer in layers.items()
    }
