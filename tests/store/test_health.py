"""Whether this database is fit to keep promises: what it is, what is unpaired, which revision it has."""

from __future__ import annotations

from service.store import health, schema
from service.store.database import statement
from tests.store.books import orders


def test_the_server_tells_what_it_is(books):
    with statement() as connection:
        found = health.server(connection)
        assert health.unpaired(connection) == (0, 0)
    assert found.major >= 16
    assert (found.isolation, found.replica) == ("read committed", False)
    assert found.name == books.url.rpartition("/")[2]


def test_an_effect_without_its_duty_is_counted(books):
    lost, _ = books.accept(*orders(2))
    books.run("delete from outbox where effect_id = %s", lost)
    with statement() as connection:
        assert health.unpaired(connection) == (1, 0)
    books.run("insert into outbox (effect_id, kind, lane, road) values (%s, 'charge', 'charge', 'fresh')", lost)


def test_the_database_is_at_the_revision_of_the_code(books):
    with statement() as connection:
        assert schema.database_head(connection) == schema.code_head()
    schema.upgrade()
    books.run("alter table alembic_version rename to hidden")
    with statement() as connection:
        assert schema.database_head(connection) is None
    books.run("alter table hidden rename to alembic_version")
