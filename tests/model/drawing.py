"""A counter-example as a Mermaid sequence diagram, so that a reader sees who did what before it broke."""

from __future__ import annotations

from tests.model.checker import Trace
from tests.model.world import World

_NAMES = "ABC"
_LEFT_OUT = ("relay publishes", "message finds nothing")


def diagram(trace: Trace) -> str:
    """One line an action; publishing is left out, it happens all the time."""
    lines = ["sequenceDiagram", "    participant P as Postgres"]
    lines += [f"    participant {name} as worker {name}" for name in _NAMES if any(_is(name, trace))]
    lines.append("    participant S as provider")
    for action, before, after in zip(trace.actions, trace.states, trace.states[1:], strict=False):
        if not action.startswith(_LEFT_OUT):
            lines.append(f"    {_line(action, before, after)}")
    if trace.loop is not None:
        lines.append("    Note over P,S: and nothing ever happens again")
    return "\n".join(lines)


def _is(name: str, trace: Trace) -> list[bool]:
    i = _NAMES.index(name)
    return [len(w.workers) > i and w.workers[i].step != "idle" for w in trace.states]


def _line(action: str, before: World, after: World) -> str:
    """An arrow for what crosses a wire, a note for what happens in one place."""
    text = action.lstrip("!?~").split(" (")[0].replace(";", ",")
    who = _actor(action, before, after)
    words = text.removeprefix("former ").removeprefix("worker ").removeprefix("provider answers: ")
    if action.startswith(("caller", "?", "relay", "~")):
        return f"Note over P: {text}"
    if who is None:
        return f"Note over {'S' if 'late request' in action or 'bank' in action else 'P,S'}: {text}"
    if "provider answers" in action:
        return f"S-->>{who}: {words}"
    if words in ("sends", "confirms"):
        return f"{who}->>S: {words}{' (its lease is over)' if action.startswith('former') else ''}"
    if words.startswith(("claims", "settles", "records")):
        return f"{who}->>P: {words}"
    return f"Note over {who}: {words}"


def _actor(action: str, before: World, after: World) -> str | None:
    if "pauses" in action:
        return _NAMES[next(i for i, w in enumerate(before.workers) if w.owner and w.step != "idle")]
    changed = [i for i, (a, b) in enumerate(zip(before.workers, after.workers, strict=True)) if a != b]
    if "passes" in action or "forgets" in action or not changed:
        return None
    return _NAMES[next((i for i in changed if after.workers[i].step == "claimed"), changed[0])]
