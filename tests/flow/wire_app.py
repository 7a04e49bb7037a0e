"""A Celery app on the real wire whose tasks only write down what they were asked; run by real `celery` workers."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from time import sleep
from typing import Any

import structlog

from service import settings
from service.broker.app import create_app
from service.broker.messages import read_effect_ids

app = create_app(settings.load())
NOTES = Path(os.environ.get("WIRE_NOTES", os.devnull))
_lock = threading.Lock()
log = structlog.get_logger(__name__)


def _note(word: str, ids: list[str]) -> None:
    with _lock, NOTES.open("a") as file:
        file.writelines(f"{word} {effect_id}\n" for effect_id in ids)


@app.task(name="charge")
def charge(*args: Any, **kwargs: Any) -> None:
    """Done at once."""
    _note("done", read_effect_ids(args, kwargs))


@app.task(name="email")
def email(*args: Any, **kwargs: Any) -> None:
    """Busy until the test creates the file, so that the broker can be hit while a task runs."""
    ids = read_effect_ids(args, kwargs)
    _note("began", ids)
    while not NOTES.with_suffix(".go").exists():
        sleep(0.02)
    _note("done", ids)


@app.task(name="raises")
def raises(*args: Any, **kwargs: Any) -> None:  # noqa: ARG001
    """A bug whose message holds what must not be logged."""
    raise ValueError("card 4242424242424242 of ada@example.com with sk_test_abcdefghijklmnop")
