"""A deliberately wrong provider turns this suite red: each mutant of the fakes fails at least the rows named here.

If a row stayed green with its mutant, the suite would be blind to what the mutant does wrong, and green with the honest
fake would mean nothing (fakes/house/mutants.py says what each of them forgets).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.fake_servers import FakeServer, running
from tests.faults.stage import SUBJECTS, End, Stage
from tests.faults.test_fault_matrix import ENDS, STORIES, rows
from tests.store.books import opened

Play = Callable[[Stage], End]


def row(subject: str, hours: int, fault: str) -> tuple[Play, End]:
    """A row of the matrix, and how it must end with an honest fake."""
    [end] = [end for s, h, f, end in rows() if (s, h, f) == (subject, hours, fault)]
    return (lambda stage: stage.play(SUBJECTS[subject], fault, hours)[1]), ENDS[end]


CAUGHT = {
    ("stripe", "forgets_keys"): row("refund", 0, "F7"),
    ("stripe", "no_stored_500"): row("refund", 0, "F4"),
    ("stripe", "no_compare"): STORIES["altered_under_its_key"],
    ("stripe", "never_expires"): row("confirm", 25, "F4"),
    ("mail", "forgets_keys"): row("keyed", 0, "F7"),
    ("mail", "no_stored_500"): row("keyed", 0, "F4"),
}


@pytest.mark.parametrize(("fake", "mutant"), CAUGHT, ids=str)
def test_the_suite_is_red_with_a_wrong_fake(fake, mutant, database, tmp_path: Path, stripe_ahead, mail_ahead):
    play, honest = CAUGHT[fake, mutant]
    with ExitStack() as stack:
        wrong: FakeServer = stack.enter_context(running(fake, tmp_path / "wrong", "--mutant", mutant))
        books = stack.enter_context(opened(database))
        both = (wrong, mail_ahead) if fake == "stripe" else (stripe_ahead, wrong)
        assert play(Stage(books, *both)) != honest


def test_the_same_rows_are_green_with_the_honest_fakes(stage: Stage):
    for play, honest in CAUGHT.values():
        found = play(stage)
        assert (found.state, found.done, found.reason) == (honest.state, honest.done, honest.reason)
