"""Each guard of the books and the wire is taken out, and its promise breaks: a guard that nobody misses guards nothing.

Where another guard covers for it, it may be missing alone; both may not, and the table says so (docs/guards.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.conftest import forget_process_state
from tests.guards import wire_without
from tests.guards.out import controls, taken_out
from tests.guards.registry import BY_STORY, GUARDS, Guard
from tests.server import Server
from tests.store.books import Books

TOLD = [guard for guard in GUARDS if guard.story]
Place = Callable[..., str]


@pytest.fixture
def played(postgres: Server, template: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Plays a guard's story on a database of its own, without what is named."""

    @contextmanager
    def fresh(*sql: str) -> Iterator[Books]:
        with postgres.database(template=template) as name:
            url = postgres.url_of(name)
            monkeypatch.setenv("COUNTERFOIL_DATABASE_URL", url)
            forget_process_state()
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in sql:
                    connection.execute(statement)
            books = Books(url)
            try:
                yield books
            finally:
                books.close()
                forget_process_state()

    def play(guard: Guard, *, out: tuple[str, ...] = (), sql: tuple[str, ...] = ()) -> str:
        assert guard.story
        if guard.story.__module__ == wire_without.__name__:
            with taken_out(*out):
                return guard.story(None)
        with fresh(*sql) as books, taken_out(*out):
            return guard.story(books)

    return play


@pytest.mark.parametrize("guard", TOLD, ids=lambda guard: guard.name)
def test_the_promise_breaks_without_its_guard_and_only_then(played: Place, record_property, guard: Guard) -> None:
    assert played(guard) == ""
    if guard.cover_sql or guard.cover_out:
        assert played(guard, out=guard.out) == "", f"{guard.name} is not covered by {guard.covered_by}"
    broken = played(guard, out=guard.out + guard.cover_out, sql=guard.cover_sql)
    assert broken, f"nobody misses {guard.name}: {guard.about}"
    record_property("broken", broken)


def test_every_control_belongs_to_a_guard() -> None:
    assert (
        set(controls()) - {name for guard in GUARDS for name in (*guard.out, *guard.controls, *guard.cover_out)}
        == set()
    )


def test_every_story_is_told_once() -> None:
    assert len(BY_STORY) == len(TOLD)
