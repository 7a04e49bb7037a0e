"""The Python door: each spoiled call raises one of our errors, which names a field, and writes nothing."""

from __future__ import annotations

import random
from typing import Any

from service.core.errors import CounterfoilError, NotExactlyOnce, ValidationError
from tasks import cancel, capture, charge, email, refund
from tests.badinput.spoiled import Spoiled, drawn
from tests.badinput.tally import Tally, leak

TASKS: dict[str, Any] = {"charge": charge, "email": email, "refund": refund, "capture": capture, "cancel": cancel}


def play(count: int, draw: random.Random) -> Tally:
    tally = Tally("python")
    for _ in range(count):
        spoiled = drawn(draw)
        tally.played(spoiled.how)
        _one(spoiled, draw, tally)
    return tally


def _one(spoiled: Spoiled, draw: random.Random, tally: Tally) -> None:
    task = TASKS[spoiled.kind]
    options = dict(spoiled.options)
    args = options.pop("args", None)
    try:
        if draw.random() < 0.1 and args is None:
            task.apply_many([{"kwargs": spoiled.request, "dedupe_key": spoiled.key, **options}])
        else:
            task.apply_async(args, spoiled.request, dedupe_key=spoiled.key, **options)
    except (ValidationError, NotExactlyOnce) as error:
        tally.answers[type(error).__name__] += 1
        if not error.field:
            tally.wrong(spoiled.how, f"names no field: {error}")
        if found := leak(f"{error} {error.field} {error!r}"):
            tally.wrong(spoiled.how, f"{found} in the error")
    except CounterfoilError as error:
        tally.wrong(spoiled.how, f"refused too late: {error!r}")
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        tally.wrong(spoiled.how, f"unhandled {type(error).__name__} {_shown(spoiled)}")
    else:
        tally.wrong(spoiled.how, f"accepted {_shown(spoiled)}")


def _shown(spoiled: Spoiled) -> str:
    """For whoever mends it; what is nested too deeply cannot be shown."""
    try:
        return repr(spoiled)[:600]
    except RecursionError:
        return "(nested deeply)"
