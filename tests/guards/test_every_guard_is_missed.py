"""The page of guards says what the registry says, and no guard is there that nobody misses.

The cells themselves are tests of their folders, in `make test` (model, faults, stories, schema) or `make chaos` (simulation,
processes). That the matrix of them says what it should is part of `make slow`.
"""

from __future__ import annotations

import pytest

from tests.guards import layers, table
from tests.guards.layers import LAYERS, RED, extras, run
from tests.guards.registry import GUARDS
from tests.guards.schema_rows import schema_rows


def test_no_guard_is_forgotten_by_the_fast_layers() -> None:
    """As the last run of the matrix saw it; each cell is a test that runs by itself."""
    assert table.unseen_in_fast_layers(table.seen(), GUARDS) == []
    assert [guard.name for guard in GUARDS if not any(layers.nodes(name, guard) for name in layers.FAST)] == []


def test_the_page_says_what_the_registry_and_the_last_run_say() -> None:
    again = table.written(table.PAGE.read_text(), table.rows(table.seen(), (*GUARDS, *extras())) + schema_rows())
    assert table.PAGE.read_text() == again, (
        "write it anew: python -m tests.guards --layers model,simulation,story,faults --write"
    )


def test_a_guard_has_one_name_and_its_names_in_other_layers_exist() -> None:
    from tests.model.variants import GUARDS as MODELLED

    names = [guard.name for guard in GUARDS]
    assert len(set(names)) == len(names)
    assert {guard.model for guard in GUARDS} - {""} <= {guard.name for guard in MODELLED}
    cells = {node for guard in (*GUARDS, *extras()) for layer in LAYERS for node in layers.nodes(layer, guard)}
    layers.collected(sorted(node for node in cells if "::" in node))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_misses_its_guards(layer: str) -> None:
    cells = run(layer, (*GUARDS, *extras()))
    silent = {name: cell.sentence for name, cell in cells.items() if cell.word == layers.GREEN}
    assert silent == {}
    assert RED in {cell.word for cell in cells.values()}
