"""Each constraint, trigger and unique index is dropped, and a write that was refused is taken: none is there for show."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.guards.bad_writes import BAD, FILLS, QUICK_ONLY
from tests.guards.schema import Thing, fills_in, is_needed, things, unlisted
from tests.server import Server


@pytest.fixture(scope="module")
def catalogue(postgres: Server, template: str) -> Iterator[psycopg.Connection]:
    """A migrated database; what a test drops in it comes back with its transaction."""
    with postgres.database(template=template) as name, psycopg.connect(postgres.url_of(name), autocommit=True) as found:
        yield found


def test_each_object_of_the_schema_is_missed_when_it_is_dropped(catalogue: psycopg.Connection, subtests) -> None:
    found = [thing for thing in things(catalogue) if thing.key not in {**FILLS, **QUICK_ONLY}]
    assert len(found) > 100
    for thing in found:
        with subtests.test(thing.key):
            assert _verdict(catalogue, thing) == "refused with it, taken without it"


def _verdict(catalogue: psycopg.Connection, thing: Thing) -> str:
    with_it, without_it = is_needed(catalogue, thing)
    return f"{'refused' if with_it else 'taken'} with it, {'refused' if without_it else 'taken'} without it"


def test_what_fills_a_column_in_is_missed_by_whoever_does_not_know_the_column(catalogue: psycopg.Connection) -> None:
    found = [thing for thing in things(catalogue) if thing.key in FILLS]
    assert {thing.key: fills_in(catalogue, thing) for thing in found} == dict.fromkeys(FILLS, (True, False))


def test_a_new_object_of_the_schema_needs_a_bad_write(catalogue: psycopg.Connection) -> None:
    found = things(catalogue)
    assert unlisted(found) == []
    assert {*BAD, *FILLS, *QUICK_ONLY} - {thing.key for thing in found} == set(), "what is listed is there"
    catalogue.execute("begin; create unique index forgotten on effects (amount)")
    assert unlisted(things(catalogue)) == ["forgotten"]
    catalogue.execute("rollback")


def test_an_index_that_is_only_quick_forbids_nothing(catalogue: psycopg.Connection) -> None:
    assert {thing.name for thing in things(catalogue) if thing.sort == "index"} == set(QUICK_ONLY)
