"""The peers page is what it says: pinned versions, one readable file a peer, each of them named on the page."""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.peers.environment import pinned
from benchmarks.peers.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
ADAPTERS = ROOT / "benchmarks" / "peers" / "adapters"
PAGE = (ROOT / "docs" / "peers.md").read_text(encoding="utf-8")
ADAPTER_LINES_MAX = 120


def adapters() -> set[str]:
    return {path.stem for path in ADAPTERS.glob("*.py")} - {"__init__"}


def test_every_version_is_pinned_and_has_its_hashes():
    assert len(pinned()) > 20
    assert [entry for entry in pinned() if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_what_the_table_shows_a_version_of_is_pinned():
    names = {entry.split("==", maxsplit=1)[0] for entry in pinned()}
    assert {name for system in SYSTEMS if not system.ours for name in system.packages} <= names


def test_the_page_names_every_adapter_and_every_adapter_has_a_row():
    assert {system.adapter for system in SYSTEMS} == adapters()
    assert [name for name in adapters() if f"benchmarks/peers/adapters/{name}.py" not in PAGE] == []


def test_each_adapter_is_short_and_has_the_whole_interface():
    for name in adapters():
        text = (ADAPTERS / f"{name}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) < ADAPTER_LINES_MAX, name
        told = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        assert {"prepare", "submit", "work", "recover", "state"} <= told, name
        assert "ENDS = {" in text, name


def test_the_words_on_the_page_are_in_quotation_marks_and_say_where_they_stand():
    for system in SYSTEMS:
        assert system.variant == "two_steps" or system.ours or ("“" in system.says and "(" in system.says), system.name
