"""No decision of the engine changes by accident: each case decides as the table says, and the table has each case."""

from __future__ import annotations

from tests.unit.decisions import KEPT, lines


def test_each_case_is_decided_as_the_table_says():
    kept, now = KEPT.read_text(encoding="utf-8").splitlines(), lines()
    changed = sorted(set(kept) ^ set(now))
    assert changed == [], "if this is meant: python -m tests.unit.decisions"
    assert len(now) == len(set(now)) > 700
