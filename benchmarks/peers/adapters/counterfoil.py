"""This project, through its own front door: `charge.apply_async` in a transaction, one relay, one worker.

The key is DESIGN's: made of the effect's id, always sent, one for each of the two steps (I6). It runs in the project's
own environment; everybody else has the other one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg

ENDS = {"succeeded": "finished", "failed": "failed"}


def prepare() -> None:
    """`counterfoil db upgrade`."""
    subprocess.run([sys.executable, "-m", "service", "db", "upgrade"], check=True, stdout=sys.stderr)


def submit(key: str, amount: int) -> str:
    """Accept one charge; another request under the same key raises DedupeConflict."""
    from tasks import charge

    wish = {"amount": amount, "currency": "eur", "payment_method": "pm_card_visa", "metadata": {"order": key}}
    result = charge.apply_async(kwargs=wish, dedupe_key=key)
    return f"accepted as effect {result.id}" if result.created else "the same effect"


def work() -> None:
    """A relay beside a worker."""
    subprocess.Popen([sys.executable, "-m", "service", "relay"])
    os.execv(  # noqa: S606 - becomes the worker itself, so that its process id is known
        sys.executable, [sys.executable, "-m", "service", "worker"]
    )


def recover() -> None:
    """Nothing: the outbox row comes due again."""


def state(key: str) -> str:
    """The effect's state."""
    with psycopg.connect(os.environ["COUNTERFOIL_DATABASE_URL"]) as db:
        row = db.execute("select state from effects where dedupe_key = %s", (key,)).fetchone()
    return row[0] if row else "none"
