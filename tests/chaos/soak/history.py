"""What a client asked for and what it was told, line by line, on disk before it goes on: `invoke`, then `ok`, `fail` or `info`.

The four of Jepsen's histories: `ok` was answered, `fail` certainly has not happened, `info` may have. A client that is
killed reads its own history when it is started again, and repeats what it does not know the end of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Literal

Type = Literal["invoke", "ok", "fail", "info"]
ENDS = ("ok", "fail")


@dataclass(frozen=True)
class Line:
    """`said` is the effect's id for `ok`, else the reason."""

    number: int
    type: Type
    said: str = ""
    at: float = 0.0


class History:
    """The file of one client."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, number: int, type_: Type, said: str = "") -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(Line(number, type_, said, time()))) + "\n")

    def lines(self) -> Iterator[Line]:
        """A last line that a kill has torn is nobody's word."""
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            with suppress(ValueError):
                yield Line(**json.loads(text))

    def ends(self) -> dict[int, Line]:
        """What each wish has come to; wishes without an end are not in it."""
        return {line.number: line for line in self.lines() if line.type in ENDS}

    def count(self, type_: Type) -> int:
        return sum(line.type == type_ for line in self.lines())
