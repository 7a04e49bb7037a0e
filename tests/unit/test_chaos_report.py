"""The report of a chaos run fails a run that did too little: green tests alone prove nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.book import VARIABLE, record
from tests.chaos.report import BOTH_BROKERS, OWED, Layer, document, read, short_of, table


def whole() -> dict[str, Layer]:
    """A run that owes nothing."""
    return {name: Layer(Counter(owed), {"valkey", "rabbitmq"}, 1) for name, owed in OWED.items()}


def test_a_run_that_did_all_it_owes_is_short_of_nothing() -> None:
    assert short_of(whole()) == []


def test_a_book_that_nobody_wrote_into_is_short_of_everything(tmp_path: Path) -> None:
    missing = short_of(read(tmp_path / "book.jsonl"))
    assert all(any(line.startswith(f"{name}:") for line in missing) for name in OWED)


@pytest.mark.parametrize(("layer", "counter"), [(name, one) for name, owed in OWED.items() for one in owed])
def test_one_less_than_owed_is_named(layer: str, counter: str) -> None:
    run = whole()
    run[layer].counts[counter] -= 1
    assert [line for line in short_of(run) if line.startswith(f"{layer}:")]


@pytest.mark.parametrize("layer", BOTH_BROKERS)
def test_a_layer_that_owes_both_brokers_and_saw_one_is_named(layer: str) -> None:
    run = whole()
    run[layer].brokers = {"valkey"}
    assert f"{layer}: only on valkey" in short_of(run)


def test_a_fault_that_never_came_and_a_violation_are_named() -> None:
    run = whole()
    run["soak"].counts.update({"fault_cut": 0, "violations": 2})
    assert {"soak: cut never came", "soak: 2 violations"} <= set(short_of(run))


def test_what_tests_record_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "book.jsonl"))
    record("wire points", "relay-postgres", broker="valkey", points=3, fault_torn=1)
    record("wire points", "relay-broker", broker="rabbitmq", points=4, fault_torn=2)
    layers = read(tmp_path / "book.jsonl")
    assert document(layers) == {
        "wire points": {"counts": {"points": 7, "fault_torn": 3}, "brokers": ["rabbitmq", "valkey"], "lines": 2}
    }
    assert "torn 3" in table(layers)
