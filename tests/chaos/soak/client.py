"""`python -m tests.chaos.soak.client NAME SEED HISTORY STOP PER_SECOND API…`: asks for what its program says, whatever happens.

What it does not know the end of it asks for again under the same key, at another door if there is one. It may be killed
at any moment and started again. It ends by itself, with 0, when the file STOP is there and nothing is left open.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.orm import Session

from service.core.errors import CounterfoilError, DedupeConflict, DependencyUnavailable
from service.store.database import engine
from tasks import task_of
from tests.chaos.soak.history import History
from tests.chaos.soak.wishes import Program, Wish
from tests.flow.waiting import age, until

HTTP_SECONDS = 6.0
AGAIN_SECONDS = (0.05, 0.4)
PATHS = {"charge": "charges", "refund": "refunds", "capture": "captures", "cancel": "cancels", "email": "emails"}
ORDER = text("insert into soak_orders (key) values (:key) on conflict do nothing")
Answer = tuple[str, str]


class _Unknown(Exception):
    """It may have happened."""


class _RolledBack(Exception):
    """The caller changed its mind before the commit."""


class Client:
    """One process with one program, one wish at a time."""

    def __init__(self, name: str, seed: int, history: History, doors: list[str]) -> None:
        self._program = Program(seed, name)
        self._history = history
        self._doors = cycle(doors)
        self._random = random.Random(name)
        self._ids: dict[int, str] = {}

    def run(self, stop: Callable[[], bool], gap_seconds: float) -> None:
        ended = self._history.ends()
        begun = {line.number for line in self._history.lines()}
        self._ids = {number: line.said for number, line in ended.items() if line.type == "ok"}
        for wish in self._program.wishes():
            if wish.number not in ended:
                if stop() and wish.number not in begun and wish.verb not in ("capture", "cancel"):
                    return
                due = age(gap_seconds * self._random.uniform(0.5, 1.5))
                self._insist(wish)
                until(due, "the next wish is due", 60)

    def _insist(self, wish: Wish) -> None:
        self._history.add(wish.number, "invoke")
        while True:
            try:
                type_, said = self._ask(wish)
            except _Unknown as error:
                self._history.add(wish.number, "info", str(error)[:200])
                until(age(self._random.uniform(*AGAIN_SECONDS)), "it is time to ask again", 60)
                continue
            if type_ == "ok":
                self._ids[wish.number] = said
            self._history.add(wish.number, "ok" if type_ == "ok" else "fail", said)
            return

    def _ask(self, wish: Wish) -> Answer:
        body = dict(wish.body)
        if wish.kind in ("refund", "capture", "cancel"):
            body["charge"] = self._concerned(wish)
        return self._by_http(wish, body) if wish.door == "http" else self._by_python(wish, body)

    def _concerned(self, wish: Wish) -> str:
        """The charge; of a repeated refund, the one that it named the first time."""
        assert wish.upon is not None
        if wish.verb in ("repeat", "change"):
            first = next(
                one for one in Program(self._program.seed, self._program.name).wishes() if one.number == wish.upon
            )
            assert first.upon is not None
            return self._ids[first.upon]
        return self._ids[wish.upon]

    # --- doors ---------------------------------------------------------------------------------------------------

    def _by_http(self, wish: Wish, body: dict[str, Any]) -> Answer:
        parts = urlsplit(next(self._doors))
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=HTTP_SECONDS)
        head = {"Idempotency-Key": f'"{wish.key}"', "Content-Type": "application/json"}
        try:
            connection.request("POST", f"/v1/{PATHS[wish.kind]}", json.dumps(body), head)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unknown(type(error).__name__) from error
        finally:
            connection.close()
        if response.status == 202:
            return "ok", str(answer["id"])
        if response.status == 503:
            raise _Unknown("503")
        return "fail", f"{response.status} {answer.get('code')}"

    def _by_python(self, wish: Wish, body: dict[str, Any]) -> Answer:
        try:
            with Session(engine()) as session, session.begin():
                session.execute(ORDER, {"key": wish.key})
                result = task_of(wish.kind).apply_async(kwargs=body, dedupe_key=wish.key, session=session)
                _change_of_mind(wish)
            return "ok", str(result.id)
        except _RolledBack:
            return "fail", "rolled back"
        except DedupeConflict:
            return "fail", "422 dedupe_conflict"
        except DependencyUnavailable as error:
            raise _Unknown(str(error)) from error
        except CounterfoilError as error:
            return "fail", f"{type(error).__name__}: {error}"
        except Exception as error:
            # The caller's own statement and commit are SQLAlchemy's to report, and may have been carried out.
            if type(error).__module__.startswith("sqlalchemy"):
                raise _Unknown(type(error).__name__) from error
            raise


def _change_of_mind(wish: Wish) -> None:
    if wish.verb == "roll back":
        raise _RolledBack


def main() -> None:
    name, seed, history, stop, per_second, *doors = sys.argv[1:]
    client = Client(name, int(seed), History(Path(history)), doors)
    client.run(Path(stop).exists, 1 / float(per_second))


if __name__ == "__main__":
    main()
