"""Walks every state of a small system, breadth first, and comes back with the shortest way to a broken property.

Safety: each property is a predicate over one state. Liveness: every fair run reaches a goal; what is looked for is a
strongly connected part without one in which a fair run can go round for ever, and the way there: a lasso.

Symmetry: workers are interchangeable, so a state is stored with its workers sorted (`canonical`). The actions of the
model never name a worker, and neither do the properties, so a permutation of a reachable state is reachable and breaks
the same properties (Clarke, Emerson, Jha, Sistla: Symmetry Reductions in Model Checking). For liveness the quotient only
forgets *which* worker took a step: a run counts as fair when some worker takes the step, which lets in more runs than
fairness to each worker would. What holds for more runs holds for fewer.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import process_time
from typing import Any, Protocol

Predicate = Callable[[Any], bool]


class Unbounded(Exception):
    """More states than the run may hold: the bounds of the model are too wide for it."""


class System(Protocol):
    """What the checker needs to know of a model. States are hashable and never change."""

    def initial(self) -> Any:
        """Where every run begins."""

    def successors(self, state: Any) -> Iterable[tuple[str, Any]]:
        """Each action that can happen now, by name, with the state it leads to."""

    def canonical(self, state: Any) -> Any:
        """One representative for all states that differ only in which worker is which."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A run from the beginning: the actions, and the state after each. `loop` is where a lasso turns back."""

    actions: tuple[str, ...]
    states: tuple[Any, ...]
    loop: int | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def __str__(self) -> str:
        lines = [f"{i:3} {action}" for i, action in enumerate(self.actions, 1)]
        if self.loop is not None:
            lines.append(f"    … and from {self.loop} on it goes round for ever")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Walk:
    """What one run found: `broken` maps a property to its shortest counter-example, `taken` are the actions seen."""

    states: int
    edges: int
    depth: int
    seconds: float
    broken: Mapping[str, Trace] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()


class _Graph:
    """The states met so far, each with the way it was first met."""

    def __init__(self, system: System) -> None:
        self.system = system
        start = system.canonical(system.initial())
        self.index: dict[Any, int] = {start: 0}
        self.states: list[Any] = [start]
        self.parents = array("l", [-1])
        self.edges = 0
        self.depth = 0
        self.taken: set[str] = set()

    def grow(self, limit: int, leave: Predicate | None = None) -> Iterator[tuple[int, Any]]:
        """Breadth first; yields each new state once. States that satisfy `leave` are not gone beyond."""
        yield 0, self.states[0]
        system, index, states, parents, taken = self.system, self.index, self.states, self.parents, self.taken
        canonical, at, border = system.canonical, 0, 1
        while at < len(states):
            if at == border:
                self.depth, border = self.depth + 1, len(states)
            state = states[at]
            if leave is None or not leave(state):
                for action, after in system.successors(state):
                    self.edges += 1
                    taken.add(action)
                    key = canonical(after)
                    if key not in index:
                        index[key] = number = len(states)
                        states.append(key)
                        parents.append(at)
                        if number >= limit:
                            raise Unbounded(f"more than {limit} states")
                        yield number, key
            at += 1

    def path(self, number: int) -> list[int]:
        """The shortest way to a state, as numbers of states."""
        way = [number]
        while self.parents[way[-1]] >= 0:
            way.append(self.parents[way[-1]])
        return way[::-1]

    def trace(self, way: list[int], loop: int | None = None) -> Trace:
        """Walk the way again without sorting the workers, so that each keeps its name throughout."""
        concrete = self.system.initial()
        actions, states = [], [concrete]
        for number in way[1:]:
            wanted = self.states[number]
            action, concrete = next(
                (a, s) for a, s in self.system.successors(concrete) if self.system.canonical(s) == wanted
            )
            actions.append(action)
            states.append(concrete)
        return Trace(tuple(actions), tuple(states), loop)


@contextmanager
def _no_collector() -> Iterator[None]:
    """States hold no cycles; looking for some among millions of them costs a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_no_collector()
def explore(system: System, properties: Mapping[str, Predicate], *, limit: int = 2_000_000, stop: bool = False) -> Walk:
    """Walk all states, or until each property is broken; with `stop`, until the first one is."""
    started = process_time()
    graph, broken, open_ = _Graph(system), {}, dict(properties)
    for number, state in graph.grow(limit):
        for name in [name for name, holds in open_.items() if not holds(state)]:
            broken[name] = graph.trace(graph.path(number))
            del open_[name]
        if broken and (stop or not open_):
            break
    return Walk(len(graph.states), graph.edges, graph.depth, process_time() - started, broken, frozenset(graph.taken))


@dataclass(frozen=True, slots=True)
class Fairness:
    """`kind` names an action's class, or None when nothing relies on it. Classes in `strong` may be switched off and on
    and still happen, when they get chances for ever; the others only when nothing switches them off (weak fairness).
    """

    kind: Callable[[str], str | None]
    strong: frozenset[str] = frozenset()


@_no_collector()
def converges(
    system: System, goal: Predicate, fairness: Fairness, *, limit: int = 2_000_000
) -> tuple[Walk, Trace | None]:
    """Whether each fair run reaches `goal`; else a lasso that never does."""
    started = process_time()
    graph = _Graph(system)
    for _ in graph.grow(limit, goal):
        pass
    moves = [[] if goal(s) else _moves(graph, s, fairness.kind) for s in graph.states]
    lasso = None
    for component in _components([[to for _, to in out] for out in moves]):
        # A goal has no moves here, so it is a component of its own.
        if not goal(graph.states[component[0]]) and (round_ := _fair_part(component, moves, fairness.strong)):
            way = graph.path(min(round_))
            lasso = graph.trace(way, loop=len(way) - 1)
            break
    walk = Walk(len(graph.states), graph.edges, graph.depth, process_time() - started, {}, frozenset(graph.taken))
    return walk, lasso


def _moves(graph: _Graph, state: Any, fair: Callable[[str], str | None]) -> list[tuple[str | None, int]]:
    system = graph.system
    return [(fair(action), graph.index[system.canonical(s)]) for action, s in system.successors(state)]


def _fair_part(component: list[int], moves: list[list[tuple[str | None, int]]], strong: frozenset[str]) -> list[int]:
    """The component, or the part of it, in which a fair run can go round for ever; empty when there is none.

    Weak: a class enabled all through the component must be taken inside it; if it is not, no part can be fair either.
    Strong: a class enabled somewhere must be taken inside; if it is not, a fair run has to stay where it is disabled.
    """
    inside = set(component)
    enabled = [{kind for kind, _ in moves[n] if kind is not None} for n in component]
    taken = {kind for n in component for kind, to in moves[n] if to in inside}
    if set.intersection(*enabled) - taken:
        return []
    starved = (set.union(*enabled) & strong) - taken
    if not starved:
        return component
    rest = [n for n, kinds in zip(component, enabled, strict=True) if not kinds & starved]
    names = {n: i for i, n in enumerate(rest)}
    parts = _components([[names[to] for _, to in moves[n] if to in names] for n in rest])
    found = (_fair_part([rest[i] for i in part], moves, strong) for part in parts)
    return next((part for part in found if part), [])


def _components(edges: list[list[int]]) -> Iterator[list[int]]:
    """Strongly connected components, without recursion (Tarjan: Depth-first search and linear graph algorithms)."""
    order, low, stack = array("l", [-1]) * len(edges), array("l", [0]) * len(edges), []
    on_stack, count = bytearray(len(edges)), 0
    for root in range(len(edges)):
        if order[root] >= 0:
            continue
        work = [(root, iter(edges[root]))]
        order[root] = low[root] = count
        count += 1
        stack.append(root)
        on_stack[root] = 1
        while work:
            node, out = work[-1]
            for to in out:
                if order[to] < 0:
                    order[to] = low[to] = count
                    count += 1
                    stack.append(to)
                    on_stack[to] = 1
                    work.append((to, iter(edges[to])))
                    break
                if on_stack[to]:
                    low[node] = min(low[node], order[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    yield _popped(stack, on_stack, node)


def _popped(stack: list[int], on_stack: bytearray, node: int) -> list[int]:
    component = []
    while not component or component[-1] != node:
        component.append(stack.pop())
        on_stack[component[-1]] = 0
    return component
