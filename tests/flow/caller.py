"""A caller with a process and a transaction of its own: `python -m tests.flow.caller KEY [wait]` prints the effect's id.

With `wait` it never commits: it stands inside its transaction until it is killed (W1).
"""

from __future__ import annotations

import signal
import sys

from sqlalchemy.orm import Session

from service.store.database import engine
from tasks import charge


def main() -> None:
    key, *wait = sys.argv[1:]
    wish = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa"}
    with Session(engine()) as session, session.begin():
        result = charge.apply_async(kwargs=wish, dedupe_key=key, session=session)
        print(result.id, flush=True)
        if wait:
            signal.pause()


if __name__ == "__main__":
    main()
