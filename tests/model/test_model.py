"""The protocol with the provider inside holds its promises in every state it can reach, and needs each of its guards."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.state import TRANSITIONS, State
from tests.model import decisions as d
from tests.model import variants as v
from tests.model.checker import Trace, Unbounded, Walk, converges, explore
from tests.model.drawing import diagram
from tests.model.protocol import Protocol
from tests.model.surroundings import Bounds
from tests.model.variants import SMALL

DEFAULT = Bounds(workers=3, messages=2, faults=3)
FAIR = Bounds(workers=3, messages=1, faults=2, fair=True)
LARGE = Bounds(workers=3, messages=2, faults=6)
LARGE_FAIR = Bounds(workers=3, messages=2, faults=4, fair=True)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"
DRAWN = ("connect_first", "front_restores")

kinds = pytest.mark.parametrize("kind", v.KINDS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def walks() -> dict[str, tuple[Protocol, Walk]]:
    """Each kind is walked once; each of its promises is a test of its own."""
    return {}


def walked(walks: dict[str, tuple[Protocol, Walk]], kind: d.Kind, tell) -> tuple[Protocol, Walk]:
    if kind.name not in walks:
        model = Protocol(kind, DEFAULT)
        walks[kind.name] = model, explore(model, v.properties(kind))
        tell(row(kind.name, walks[kind.name][1]))
    return walks[kind.name]


def row(name: str, walk: Walk, *more: str) -> str:
    return f"{name:44} {walk.states:>9,} states {walk.edges:>10,} moves {walk.seconds:6.1f} s  {' '.join(more)}"


def broken(removed: v.Removed) -> tuple[Walk, Trace | None]:
    model = Protocol(removed.kind, removed.bounds, removed=frozenset({removed.name}))
    if removed.breaks == v.ENDS:
        return converges(model, v.at_rest, v.FAIRNESS)
    promise = {removed.breaks: v.properties(removed.kind)[removed.breaks]}
    walk = explore(model, promise, limit=500_000)
    return walk, walk.broken.get(removed.breaks)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [pytest.param(kind, promise, id=f"{kind.name}: {promise}") for kind in v.KINDS for promise in v.properties(kind)],
)
def test_safety_holds_in_every_state(walks, tell, kind, promise):
    _, walk = walked(walks, kind, tell)
    assert promise not in walk.broken, f"\n{walk.broken[promise]}"


@kinds
def test_each_effect_is_settled_or_waits_for_a_person(tell, kind):
    walk, lasso = converges(Protocol(kind, FAIR), v.at_rest, v.FAIRNESS)
    tell(row(f"{kind.name}: it ends", walk))
    assert lasso is None, f"\n{lasso}"


@kinds
def test_it_is_not_vacuous_each_branch_of_recovery_is_taken(walks, tell, kind):
    _, walk = walked(walks, kind, tell)
    missing = [name for name in v.REACHED[kind.name] if not any(action.startswith(name) for action in walk.taken)]
    assert missing == []


@pytest.mark.parametrize("removed", [*v.GUARDS, *v.ASSUMPTIONS], ids=lambda removed: removed.name)
def test_each_guard_is_needed(tell, removed):
    walk, trace = broken(removed)
    assert trace is not None, f"without {removed.name}, {removed.breaks!r} still holds in {walk.states} states"
    tell(row(f"without {removed.name}", walk, f"breaks in {len(trace)} steps: {removed.breaks}"))


@pytest.mark.parametrize(
    ("kind", "bounds"),
    sorted({(removed.kind, removed.bounds) for removed in (*v.GUARDS, *v.ASSUMPTIONS)}, key=str),
    ids=lambda value: value.name if isinstance(value, d.Kind) else f"{value.faults} faults{', fair' * value.fair}",
)
def test_with_all_guards_the_same_walks_find_nothing(kind, bounds):
    """A counter-example is its guard's doing, not that of the bounds it was found in."""
    model = Protocol(kind, bounds)
    if bounds.fair:
        assert converges(model, v.at_rest, v.FAIRNESS)[1] is None
    else:
        assert explore(model, v.properties(kind)).broken == {}


@pytest.mark.parametrize("name", v.SURVIVED_BY_A_CHARGE)
def test_a_charge_is_made_once_even_without(name):
    model = Protocol(d.CHARGE, SMALL, removed=frozenset({name}))
    assert explore(model, {v.DONE: v.properties(d.CHARGE)[v.DONE]}).broken == {}


@pytest.mark.parametrize("names", v.TOGETHER, ids=lambda names: " and ".join(sorted(names)))
def test_two_lines_of_a_charge_may_not_be_missing_together(tell, names):
    walk = explore(Protocol(d.CHARGE, SMALL, removed=names), {v.DONE: v.properties(d.CHARGE)[v.DONE]})
    assert v.DONE in walk.broken
    tell(row(f"charge without {' and '.join(sorted(names))}", walk, f"breaks in {len(walk.broken[v.DONE])} steps"))


@kinds
def test_tidying_former_owners_away_changes_no_verdict(kind):
    tidy, untidy = (explore(Protocol(kind, SMALL, tidy=flag), v.properties(kind)) for flag in (True, False))
    assert untidy.broken == tidy.broken == {}
    assert untidy.states > tidy.states


def test_sorting_the_workers_changes_no_verdict():
    """The same walks without symmetry: more states, the same end."""

    class Unsorted(Protocol):
        def canonical(self, world):
            return world

    for removed in (frozenset(), frozenset({"front_restores"})):
        one, other = (
            explore(kind(d.REFUND, SMALL, removed=removed), v.properties(d.REFUND)) for kind in (Protocol, Unsorted)
        )
        assert one.broken.keys() == other.broken.keys()
        assert [len(trace) for trace in one.broken.values()] == [len(trace) for trace in other.broken.values()]
        assert other.states > one.states


def test_every_move_is_the_products_and_all_but_these_are_taken(walks, tell):
    taken = {move for kind in v.KINDS for move in walked(walks, kind, tell)[0].moves} - {("none", "pending")}
    legal = {(a.value, b.value) for a, targets in TRANSITIONS.items() for b in targets}
    assert taken <= legal
    # What the model has no reason to do: verify and webhooks may take these, a worker goes through `executing`.
    assert legal - taken == {("unknown", "pending"), ("awaiting", "parked")}


@pytest.mark.parametrize("move", [(State.EXECUTING, State.UNKNOWN), (State.PARKED, State.PENDING)], ids=" to ".join)
def test_a_move_the_table_forbids_is_found(monkeypatch, move):
    monkeypatch.setattr(d, "LEGAL", d.LEGAL - {(move[0].value, move[1].value)})
    assert v.LEGAL in explore(Protocol(d.REFUND, SMALL), v.properties(d.REFUND)).broken


def test_a_model_that_outgrows_its_bounds_is_an_error_and_no_proof():
    with pytest.raises(Unbounded):
        explore(Protocol(d.REFUND, SMALL), {}, limit=100)


def test_the_page_names_every_kind_guard_and_promise():
    page = PAGE.read_text()
    names = [kind.name for kind in v.KINDS] + [f"`{removed.name}`" for removed in (*v.GUARDS, *v.ASSUMPTIONS)]
    names += v.properties(d.TWICE)
    assert [name for name in names if name not in page] == []


@pytest.mark.parametrize("name", DRAWN)
def test_the_pages_diagrams_are_what_the_checker_finds(name):
    _, trace = broken(next(removed for removed in v.GUARDS if removed.name == name))
    assert trace is not None
    assert f"```mermaid\n{diagram(trace)}\n```" in PAGE.read_text(), diagram(trace)


@pytest.mark.slow
@kinds
def test_safety_holds_within_larger_bounds(tell, kind):
    walk = explore(Protocol(kind, LARGE), v.properties(kind), limit=8_000_000)
    tell(row(f"{kind.name}, {LARGE.faults} faults", walk))
    assert walk.broken == {}


@pytest.mark.slow
@kinds
def test_it_ends_within_larger_bounds(tell, kind):
    walk, lasso = converges(Protocol(kind, LARGE_FAIR), v.at_rest, v.FAIRNESS)
    tell(row(f"{kind.name}: it ends, {LARGE_FAIR.faults} faults", walk))
    assert lasso is None, f"\n{lasso}"
