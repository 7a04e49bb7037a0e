"""The part of docs/guards.md about the schema: each object and what would be written without it."""

from __future__ import annotations

from tests.guards.bad_writes import BAD, FILLS, QUICK_ONLY


def schema_rows() -> str:
    """A table of what forbids something, and the list of what does not."""
    lines = ["", "## The schema", "", "| object | without it, this is written |", "|---|---|"]
    lines += [f"| `{name}` | {bad.harm} |" for name, bad in sorted(BAD.items())]
    lines += ["", "Each NOT NULL as well: a whole row without that column is refused with it and taken without it."]
    lines += ["", "What fills a column in, so that a write is taken that would be refused without it:", ""]
    lines += [f"- `{name}`: {harm}" for name, (harm, _) in sorted(FILLS.items())]
    lines += ["", "Indexes that forbid nothing, and are quick only:", ""]
    lines += [f"- `{name}`: {why}" for name, why in sorted(QUICK_ONLY.items())]
    return "\n".join(lines) + "\n"
